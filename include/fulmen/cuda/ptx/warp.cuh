// SPDX-License-Identifier: Apache-2.0
// What threads of a warp and of a CTA do together.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

inline constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ int32_t warp_lane() { return int32_t(threadIdx.x) % 32; }
__device__ __forceinline__ int32_t warp_index() { return int32_t(threadIdx.x) / 32; }

// The thread's index, read anew: what is computed from it lives no longer than the phase that asked. Of threadIdx the
// compiler would move all of that out of a persistent loop, into registers that the loop needs.
__device__ __forceinline__ int32_t fresh_thread() {
  int32_t x;
  asm volatile("mov.u32 %0, %%tid.x;" : "=r"(x));
  __builtin_assume(x >= 0 && x < 1024);  // divisions become shifts
  return x;
}

// x, of which the compiler forgets where it came from: what follows from it is computed here and not kept from before.
__device__ __forceinline__ int32_t forget(int32_t x) {
  asm volatile("" : "+r"(x));
  return x;
}
__device__ __forceinline__ uint32_t forget(uint32_t x) { return uint32_t(forget(int32_t(x))); }
__device__ __forceinline__ float forget(float x) {
  asm volatile("" : "+f"(x));
  return x;
}

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
__device__ __forceinline__ int32_t num_bits(uint32_t bits) { return __popc(bits); }
__device__ __forceinline__ void sync_warp() { __syncwarp(); }

// Over the warp, by one instruction from sm_80 on.
__device__ __forceinline__ uint32_t add_warp(uint32_t x) {
  uint32_t sum = x;
  if constexpr (kArch >= 80) {
    asm volatile("redux.sync.add.u32 %0, %1, 0xffffffff;" : "=r"(sum) : "r"(x));
  } else {
#pragma unroll
    for (int32_t mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  }
  return sum;
}
__device__ __forceinline__ uint32_t max_warp(uint32_t x) {
  uint32_t most = x;
  if constexpr (kArch >= 80) {
    asm volatile("redux.sync.max.u32 %0, %1, 0xffffffff;" : "=r"(most) : "r"(x));
  } else {
#pragma unroll
    for (int32_t mask = 16; mask > 0; mask /= 2) {
      const uint32_t other = shuffle_xor(most, mask);
      most = other > most ? other : most;
    }
  }
  return most;
}
// 27 bits at a time, whose sums fit a word.
__device__ __forceinline__ uint64_t add_warp(uint64_t x) {
  constexpr uint32_t kMask = (1u << 27) - 1;
  const uint64_t low = add_warp(uint32_t(x) & kMask), middle = add_warp(uint32_t(x >> 27) & kMask),
                 high = add_warp(uint32_t(x >> 54));
  return low + (middle << 27) + (high << 54);
}

// All threads of the CTA call; orders their shared and global memory.
__device__ __forceinline__ void sync_cta() { __syncthreads(); }

// What this thread wrote before is seen by every CTA that sees what it writes after.
__device__ __forceinline__ void fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

// On shared or global memory.
__device__ __forceinline__ void atomic_add(uint32_t* p, uint32_t x) { atomicAdd(p, x); }
__device__ __forceinline__ void atomic_add(float* p, float x) { atomicAdd(p, x); }
__device__ __forceinline__ void atomic_add(unsigned long long* p, unsigned long long x) { atomicAdd(p, x); }
__device__ __forceinline__ uint32_t fetch_add(uint32_t* p, uint32_t x) { return atomicAdd(p, x); }
// Counts up to `last` and starts again. What this CTA wrote before a barrier is seen by whoever counts later.
__device__ __forceinline__ uint32_t count_arrival(uint32_t* p, uint32_t last) {
  uint32_t before;
  asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;" : "=r"(before) : "l"(p), "r"(last) : "memory");
  return before;
}
__device__ __forceinline__ uint32_t atomic_add_local(uint32_t* p, uint32_t x) { return atomicAdd(p, x); }  // before
__device__ __forceinline__ void atomic_or(uint32_t* p, uint32_t x) { atomicOr(p, x); }
__device__ __forceinline__ uint32_t atomic_max(uint32_t* p, uint32_t x) { return atomicMax(p, x); }

}  // namespace fulmen::cuda
