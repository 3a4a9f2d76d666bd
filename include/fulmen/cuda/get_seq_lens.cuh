// SPDX-License-Identifier: Apache-2.0
// get_seq_lens: a thread per request. Launched by src/cuda/page_tables.cc.
#pragma once
#include <fulmen/cuda/get_seq_lens.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::get_seq_lens {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  const int64_t request = int64_t(blockIdx.x) * K.threads + threadIdx.x;
  if (request >= p.batch_size) return;
  wait_for_predecessor();
  allow_successor();
  const int64_t num_pages = p.kv_indptr[request + 1] - p.kv_indptr[request];
  p.seq_lens.set(request, num_pages <= 0 ? 0 : (num_pages - 1) * p.page_size + p.last_page_len[request]);
}

}  // namespace fulmen::cuda::get_seq_lens
