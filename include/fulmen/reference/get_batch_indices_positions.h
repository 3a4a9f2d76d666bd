// SPDX-License-Identifier: Apache-2.0
// get_batch_indices_positions token by token: looks for the owner of each. Exact.
#pragma once
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

struct BatchIndicesPositions {
  std::vector<int64_t> batch_indices, positions;
};

inline BatchIndicesPositions get_batch_indices_positions(const GetBatchIndicesPositionsArgs& a) {
  const int64_t nnz = a.batch_indices.shape[0];
  BatchIndicesPositions r{std::vector<int64_t>(size_t(nnz), -1), std::vector<int64_t>(size_t(nnz), 0)};
  for (int64_t t = 0; t < nnz; ++t)
    for (int64_t b = 0; b < a.seq_lens.shape[0]; ++b) {
      const int64_t begin = int64_t(element(a.append_indptr, b)), end = int64_t(element(a.append_indptr, b + 1));
      if (t < begin || t >= end) continue;
      r.batch_indices[size_t(t)] = b;
      r.positions[size_t(t)] = int64_t(element(a.seq_lens, b)) - (end - begin) + (t - begin);
    }
  return r;
}

}  // namespace fulmen::reference
