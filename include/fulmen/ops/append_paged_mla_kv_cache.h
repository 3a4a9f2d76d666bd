// SPDX-License-Identifier: Apache-2.0
// append_paged_mla_kv_cache: copies the compressed KV and the rotary key of new tokens to their slots of an MLA cache.
// As append_paged_kv_cache with one head whose key and value are ckv and kpe; the caches may be two slices of one
// tensor.
#pragma once
#include <fulmen/ops/append_paged_kv_cache.h>

namespace fulmen {

struct AppendPagedMlaKvCacheArgs {
  TensorView append_ckv;     // [nnz, head_dim_ckv] the cache's dtype
  TensorView append_kpe;     // [nnz, head_dim_kpe] the cache's dtype
  TensorView batch_indices;  // [nnz] i32, i64; negative: skipped
  TensorView positions;      // [nnz] i32, i64, position in the request's kv
  TensorView ckv_cache;      // [num_pages, page_size, head_dim_ckv], written
  TensorView kpe_cache;      // [num_pages, page_size, head_dim_kpe], written
  TensorView kv_indices;     // [num_kv_indices] i32, i64, page numbers
  TensorView kv_indptr;      // [batch_size+1] i32, i64, offsets into kv_indices
  TensorView last_page_len;  // [batch_size] i32, i64; optional: given, no position may lie behind it
};

inline constexpr OpSchema kAppendPagedMlaKvCacheSchema{
    "append_paged_mla_kv_cache",
    {
        {"append_ckv", "nnz head_dim_ckv", kCacheElements, Access::kRead, Presence::kRequired, "compressed KV"},
        {"append_kpe", "nnz head_dim_kpe", kCacheElements, Access::kRead, Presence::kRequired,
         "rotary part of the key"},
        {"batch_indices", "nnz", kIds, Access::kRead, Presence::kRequired, "request of each token; negative: skipped"},
        {"positions", "nnz", kIds, Access::kRead, Presence::kRequired, "position of each token in its request"},
        {"ckv_cache", "num_pages page_size head_dim_ckv", kCacheElements, Access::kWrite, Presence::kRequired,
         "append_ckv's dtype"},
        {"kpe_cache", "num_pages page_size head_dim_kpe", kCacheElements, Access::kWrite, Presence::kRequired,
         "append_kpe's dtype"},
        {"kv_indices", "num_kv_indices", kIds, Access::kRead, Presence::kRequired, "page numbers of all requests"},
        {"kv_indptr", "batch_size+1", kIds, Access::kRead, Presence::kRequired, "first page of each request"},
        {"last_page_len", "batch_size", kIds, Access::kRead, Presence::kOptional, "tokens in each last page"},
    }};

void check(const AppendPagedMlaKvCacheArgs& args);  // throws Error{kInvalidArgument}
void append_paged_mla_kv_cache(const AppendPagedMlaKvCacheArgs& args, const Context& context = {});

// The same copy as seen by append_paged_kv_cache: a head axis of length 1 everywhere.
inline AppendPagedKvCacheArgs as_kv_cache(const AppendPagedMlaKvCacheArgs& a) {
  return {.append_key = insert_axis(a.append_ckv, 1),
          .append_value = insert_axis(a.append_kpe, 1),
          .batch_indices = a.batch_indices,
          .positions = a.positions,
          .k_cache = insert_axis(a.ckv_cache, 2),
          .v_cache = insert_axis(a.kpe_cache, 2),
          .kv_indices = a.kv_indices,
          .kv_indptr = a.kv_indptr,
          .last_page_len = a.last_page_len};
}
inline Cost cost(const AppendPagedMlaKvCacheArgs& args) { return cost(as_kv_cache(args)); }

}  // namespace fulmen
