// SPDX-License-Identifier: Apache-2.0
// Sums of what the threads before this one hold.
#pragma once
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda {

// Of this lane and those below; all 32 lanes call.
template <class T>
__device__ __forceinline__ T sum_through(T x) {
#pragma unroll
  for (int32_t d = 1; d < 32; d *= 2) {
    const T other = shuffle_up(x, d);
    if (warp_lane() >= d) x += other;
  }
  return x;
}

// Of the threads before this one; *total: of all. All threads of the CTA call. warp_sums: a word per warp, in shared
// memory; free again afterwards.
template <int32_t kThreads>
__device__ __forceinline__ uint32_t sum_before(uint32_t x, uint32_t* warp_sums, uint32_t* total) {
  const uint32_t sum = sum_through(x);
  if (warp_lane() == 31) warp_sums[warp_index()] = sum;
  sync_cta();
  const uint32_t own = warp_lane() < kThreads / 32 ? warp_sums[warp_lane()] : 0;
  *total = add_warp(own);
  const uint32_t before = add_warp(warp_lane() < warp_index() ? own : 0u);
  sync_cta();
  return before + sum - x;
}

}  // namespace fulmen::cuda
