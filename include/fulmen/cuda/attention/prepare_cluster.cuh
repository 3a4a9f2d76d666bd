// SPDX-License-Identifier: Apache-2.0
// Batches of many tiles are planned by the CTAs of a cluster: each counts tiles of its own, one stretch of them, and
// reads in the others' shared memory what they counted.
#pragma once
#include <fulmen/cuda/attention_prepare.h>
#include <fulmen/cuda/ptx/cluster.cuh>
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda::attention_prepare {

template <Key K>
__device__ __forceinline__ int32_t num_ctas() {
  return K.many ? int32_t(cluster_size()) : 1;
}
template <Key K>
__device__ __forceinline__ int32_t cta_rank() {
  return K.many ? int32_t(cluster_rank()) : 0;
}
template <Key K>
__device__ __forceinline__ void sync_ctas() {
  if constexpr (K.many)
    sync_cluster();
  else
    sync_cta();
}

// A number of each CTA's shared memory, all on their way at once; 0 beyond the cluster.
template <Key K>
__device__ __forceinline__ void load_all(uint32_t (&x)[kCtas], const uint32_t* own) {
  const int32_t size = num_ctas<K>();
#pragma unroll
  for (int32_t i = 0; i < kCtas; ++i) x[i] = i < size ? load_remote(own, uint32_t(i)) : 0;
}

// Of a number that each CTA has in its shared memory: what those before this one have, and all.
struct Share {
  uint32_t before = 0, total = 0;
};
// Between two sync_ctas(): all have written, nobody writes again before all have read.
template <Key K>
__device__ __forceinline__ Share share_of(const uint32_t* own) {
  if constexpr (!K.many) return {0, *own};
  Share s;
  const int32_t rank = cta_rank<K>();
  uint32_t x[kCtas];
  load_all<K>(x, own);
#pragma unroll
  for (int32_t i = 0; i < kCtas; ++i) s.before += i < rank ? x[i] : 0, s.total += x[i];
  return s;
}
template <Key K>
__device__ __forceinline__ uint32_t most_of(const uint32_t* own) {
  uint32_t x[kCtas], most = 0;
  load_all<K>(x, own);
#pragma unroll
  for (int32_t i = 0; i < kCtas; ++i) most = math::max(most, x[i]);
  return most;
}

}  // namespace fulmen::cuda::attention_prepare
