// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/ops/get_seq_lens.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {

void append_paged_kv_cache_(Tensor append_key, Tensor append_value, Tensor batch_indices, Tensor positions,
                            Tensor k_cache, Tensor v_cache, Tensor kv_indices, Tensor kv_indptr,
                            MaybeTensor last_page_len) {
  const TensorView cache = view(k_cache);
  append_paged_kv_cache({.append_key = view(append_key),
                         .append_value = view(append_value),
                         .batch_indices = view(batch_indices),
                         .positions = view(positions),
                         .k_cache = cache,
                         .v_cache = view(v_cache),
                         .kv_indices = view(kv_indices),
                         .kv_indptr = view(kv_indptr),
                         .last_page_len = view(last_page_len)},
                        context_of(cache));
}

void append_paged_mla_kv_cache_(Tensor append_ckv, Tensor append_kpe, Tensor batch_indices, Tensor positions,
                                Tensor ckv_cache, Tensor kpe_cache, Tensor kv_indices, Tensor kv_indptr,
                                MaybeTensor last_page_len) {
  const TensorView cache = view(ckv_cache);
  append_paged_mla_kv_cache({.append_ckv = view(append_ckv),
                             .append_kpe = view(append_kpe),
                             .batch_indices = view(batch_indices),
                             .positions = view(positions),
                             .ckv_cache = cache,
                             .kpe_cache = view(kpe_cache),
                             .kv_indices = view(kv_indices),
                             .kv_indptr = view(kv_indptr),
                             .last_page_len = view(last_page_len)},
                            context_of(cache));
}

void get_batch_indices_positions_(Tensor append_indptr, Tensor seq_lens, Tensor batch_indices, Tensor positions) {
  const TensorView out = view(positions);
  get_batch_indices_positions({.append_indptr = view(append_indptr),
                               .seq_lens = view(seq_lens),
                               .batch_indices = view(batch_indices),
                               .positions = out},
                              context_of(out));
}

void get_seq_lens_(Tensor kv_indptr, Tensor last_page_len, Tensor seq_lens, int64_t page_size) {
  const TensorView out = view(seq_lens);
  get_seq_lens(
      {.kv_indptr = view(kv_indptr), .last_page_len = view(last_page_len), .seq_lens = out, .page_size = page_size},
      context_of(out));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    append_paged_kv_cache,
    "append_key, append_value, batch_indices, positions, k_cache, v_cache, kv_indices, kv_indptr, last_page_len",
    "writes new tokens into their pages; caches are [num_pages, page_size, num_kv_heads, head_dim] views");
FULMEN_FFI_EXPORT(
    append_paged_mla_kv_cache,
    "append_ckv, append_kpe, batch_indices, positions, ckv_cache, kpe_cache, kv_indices, kv_indptr, last_page_len",
    "writes new tokens into the pages of an MLA cache");
FULMEN_FFI_EXPORT(get_batch_indices_positions, "append_indptr, seq_lens, batch_indices, positions",
                  "request and position of every appended token; request -1 where none owns it");
FULMEN_FFI_EXPORT(get_seq_lens, "kv_indptr, last_page_len, seq_lens, page_size",
                  "kv lengths in tokens from a page table");
