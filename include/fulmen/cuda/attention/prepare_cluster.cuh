// SPDX-License-Identifier: Apache-2.0
// Batches of many tiles are planned by the CTAs of a cluster: each counts tiles of its own, one stretch of them, and
// reads in the others' shared memory what they counted.
#pragma once
#include <fulmen/cuda/attention_prepare.h>
#include <fulmen/cuda/ptx/cluster.cuh>
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda::attention_prepare {

__device__ __forceinline__ int32_t num_ctas() { return int32_t(cluster_size()); }
__device__ __forceinline__ int32_t cta_rank() { return int32_t(cluster_rank()); }

// Of a number that each CTA has in its shared memory: what those before this one have, and all. Read between two
// sync_cluster(): all have written, nobody writes again before all have read.
struct Share {
  uint32_t before = 0, total = 0;
};
// Each thread's own number; all CTAs' are on their way at once.
__device__ __forceinline__ Share share_of(const uint32_t* own) {
  Share s;
  uint32_t x[kCtas];
  const int32_t size = num_ctas(), rank = cta_rank();
#pragma unroll
  for (int32_t i = 0; i < kCtas; ++i) x[i] = i < size ? load_remote(own, uint32_t(i)) : 0;
#pragma unroll
  for (int32_t i = 0; i < kCtas; ++i) s.before += i < rank ? x[i] : 0, s.total += x[i];
  return s;
}
// One number for all threads of a warp: a lane asks for a CTA's.
__device__ __forceinline__ uint32_t of_each_cta(const uint32_t* own) {
  return warp_lane() < num_ctas() ? load_remote(own, uint32_t(warp_lane())) : 0;
}
__device__ __forceinline__ Share warp_share_of(const uint32_t* own) {
  const uint32_t x = of_each_cta(own);
  return {add_warp(warp_lane() < cta_rank() ? x : 0u), add_warp(x)};
}

}  // namespace fulmen::cuda::attention_prepare
