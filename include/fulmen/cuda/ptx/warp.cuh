// SPDX-License-Identifier: Apache-2.0
// What threads of a warp and of a CTA do together.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

inline constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ int32_t warp_lane() { return int32_t(threadIdx.x) % 32; }
__device__ __forceinline__ int32_t warp_index() { return int32_t(threadIdx.x) / 32; }

// All 32 lanes call.
template <class T>
__device__ __forceinline__ T shuffle_xor(T x, int32_t mask) {
  return __shfl_xor_sync(kAllLanes, x, mask);
}
template <class T>
__device__ __forceinline__ T shuffle_up(T x, int32_t distance) {  // lanes below `distance` keep their own
  return __shfl_up_sync(kAllLanes, x, uint32_t(distance));
}
template <class T>
__device__ __forceinline__ T shuffle_from(T x, int32_t lane) {
  return __shfl_sync(kAllLanes, x, lane);
}
__device__ __forceinline__ uint32_t ballot(bool predicate) { return __ballot_sync(kAllLanes, predicate); }
// Of a ballot's or any other bits that are not all 0.
__device__ __forceinline__ int32_t first_bit(uint32_t bits) { return __ffs(int32_t(bits)) - 1; }
__device__ __forceinline__ int32_t last_bit(uint32_t bits) { return 31 - __clz(int32_t(bits)); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

// All threads of the CTA call; orders their shared and global memory.
__device__ __forceinline__ void sync_cta() { __syncthreads(); }

// On shared or global memory.
__device__ __forceinline__ void atomic_add(uint32_t* p, uint32_t x) { atomicAdd(p, x); }
__device__ __forceinline__ void atomic_add(float* p, float x) { atomicAdd(p, x); }
__device__ __forceinline__ void atomic_add(unsigned long long* p, unsigned long long x) { atomicAdd(p, x); }
__device__ __forceinline__ uint32_t atomic_max(uint32_t* p, uint32_t x) { return atomicMax(p, x); }

}  // namespace fulmen::cuda
