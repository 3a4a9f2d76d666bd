// SPDX-License-Identifier: Apache-2.0
// CPU get_batch_indices_positions: a check of the table, then one request per work item.
// Called by src/cpu/levels/get_batch_indices_positions.cc.
#pragma once
#include <fulmen/core/executor.h>
#include <fulmen/cpu/index_checks.h>
#include <fulmen/cpu/level.h>
#include <fulmen/ops/get_batch_indices_positions.h>

FULMEN_CPU_BEGIN

inline void get_batch_indices_positions(const GetBatchIndicesPositionsArgs& a, const GetBatchIndicesPositionsDims& d,
                                        const Executor& executor) {
  constexpr std::string_view kOp = "get_batch_indices_positions";
  check_indptr(kOp, "append_indptr", a.append_indptr, d.nnz);
  const Ids indptr(a.append_indptr), seq_lens(a.seq_lens), batch_indices(a.batch_indices), positions(a.positions);
  for (int64_t b = 0; b < d.batch_size; ++b)
    if (const int64_t len = indptr[b + 1] - indptr[b]; seq_lens[b] < len)
      fail_at(kOp, "seq_lens", b, seq_lens[b], "the " + std::to_string(len) + " appended tokens or more");
  const auto pad = [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) batch_indices.set(t, -1), positions.set(t, 0);
  };
  pad(0, d.batch_size == 0 ? d.nnz : indptr[0]);
  parallel_chunks(executor, d.batch_size, 16, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t last = indptr[b + 1], first_position = seq_lens[b] - last;
      for (int64_t t = indptr[b]; t < last; ++t) batch_indices.set(t, b), positions.set(t, first_position + t);
    }
  });
  if (d.batch_size > 0) pad(indptr[d.batch_size], d.nnz);
}

FULMEN_CPU_END
