// SPDX-License-Identifier: Apache-2.0
// get_batch_indices_positions: a thread looks for the owner of its token. Launched by src/cuda/page_tables.cc.
#pragma once
#include <fulmen/cuda/get_batch_indices_positions.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/segment.cuh>

namespace fulmen::cuda::get_batch_indices_positions {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  const int64_t token = int64_t(blockIdx.x) * K.threads + threadIdx.x;
  if (token >= p.nnz) return;
  wait_for_predecessor();
  allow_successor();
  int64_t request = -1, position = 0;
  if (p.batch_size > 0 && token >= p.append_indptr[0] && token < p.append_indptr[p.batch_size]) {
    request = last_at_or_below(p.append_indptr, p.batch_size, token);
    position = p.seq_lens[request] - (p.append_indptr[request + 1] - token);
  }
  p.batch_indices.set(token, request);
  p.positions.set(token, position);
}

}  // namespace fulmen::cuda::get_batch_indices_positions
