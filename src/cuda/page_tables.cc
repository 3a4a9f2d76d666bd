// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/page_tables.h"

#include <fulmen/core/math.h>

#include "src/cuda/ids.h"

namespace fulmen::cuda {
namespace {

std::string refuses_count(int64_t n) { return n >> 38 == 0 ? "" : "more than 2^38 numbers"; }

Shape shape_for(int64_t n, int32_t threads) {
  return {.grid = uint32_t(math::ceil_div(n, int64_t(threads))), .num_threads = uint32_t(threads)};
}

}  // namespace

runtime::Refusal GetBatchIndicesPositions::refuses(const Args& a) { return refuses_count(a.batch_indices.shape[0]); }

Work<get_batch_indices_positions::Key, get_batch_indices_positions::Params> GetBatchIndicesPositions::work(
    const Args& a, const Device&) {
  return {.key = {},
          .params = {.append_indptr = ids_of(a.append_indptr),
                     .seq_lens = ids_of(a.seq_lens),
                     .batch_indices = ids_of(a.batch_indices),
                     .positions = ids_of(a.positions),
                     .nnz = a.batch_indices.shape[0],
                     .batch_size = a.seq_lens.shape[0]},
          .shape = shape_for(a.batch_indices.shape[0], Key{}.threads),
          .persistent = false};
}

runtime::Refusal GetSeqLens::refuses(const Args& a) { return refuses_count(a.seq_lens.shape[0]); }

Work<get_seq_lens::Key, get_seq_lens::Params> GetSeqLens::work(const Args& a, const Device&) {
  return {.key = {},
          .params = {.kv_indptr = ids_of(a.kv_indptr),
                     .last_page_len = ids_of(a.last_page_len),
                     .seq_lens = ids_of(a.seq_lens),
                     .batch_size = a.seq_lens.shape[0],
                     .page_size = a.page_size},
          .shape = shape_for(a.seq_lens.shape[0], Key{}.threads),
          .persistent = false};
}

}  // namespace fulmen::cuda
