// SPDX-License-Identifier: Apache-2.0
// get_batch_indices_positions: request and position of every appended token, as append_paged_kv_cache and rope want
// them.
//   for t in append_indptr[b] .. append_indptr[b+1]-1:
//     batch_indices[t] = b,   positions[t] = seq_lens[b] − (append_indptr[b+1] − t)
// seq_lens counts the appended tokens. Tokens outside every request get batch index −1 and position 0.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct GetBatchIndicesPositionsArgs {
  TensorView append_indptr;  // [batch_size+1] i32, i64: first appended token of each request
  TensorView seq_lens;       // [batch_size] i32, i64: kv_len of each request after the append
  TensorView batch_indices;  // [nnz] i32, i64, written
  TensorView positions;      // [nnz] i32, i64, written
};

inline constexpr OpSchema kGetBatchIndicesPositionsSchema{
    "get_batch_indices_positions",
    {
        {"append_indptr", "batch_size+1", kIds, Access::kRead, Presence::kRequired, "first token of each request"},
        {"seq_lens", "batch_size", kIds, Access::kRead, Presence::kRequired, "kv_len after the append"},
        {"batch_indices", "nnz", kIds, Access::kWrite, Presence::kRequired, "−1 where no request owns the token"},
        {"positions", "nnz", kIds, Access::kWrite, Presence::kRequired, "0 where no request owns the token"},
    }};

struct GetBatchIndicesPositionsDims {
  int64_t batch_size, nnz;
};

GetBatchIndicesPositionsDims check(const GetBatchIndicesPositionsArgs& args);  // throws Error{kInvalidArgument}
void get_batch_indices_positions(const GetBatchIndicesPositionsArgs& args, const Context& context = {});

inline Cost cost(const GetBatchIndicesPositionsArgs& args) {
  const double written = double(args.batch_indices.num_elements()) * size_of(args.batch_indices.dtype) +
                         double(args.positions.num_elements()) * size_of(args.positions.dtype);
  return {.bytes = written, .bytes_written = written};
}

}  // namespace fulmen
