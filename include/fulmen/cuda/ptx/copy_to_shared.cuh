// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that pass the registers by (sm_80 and up; before, plain loads and stores).
#pragma once
#include <fulmen/cuda/ptx/memory.cuh>

namespace fulmen::cuda {

// N bytes, both ends aligned to N. Complete for this thread after wait_for_copies.
template <int32_t N>
__device__ __forceinline__ void copy_to_shared(void* shared, const void* global) {
  if constexpr (kArch >= 80 && N == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(uint32_t(__cvta_generic_to_shared(shared))),
                 "l"(global)
                 : "memory");
  } else if constexpr (kArch >= 80 && (N == 4 || N == 8)) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(uint32_t(__cvta_generic_to_shared(shared))),
                 "l"(global), "n"(N)
                 : "memory");
  } else {
    const Bits<N> b = load_stream<N>(global);
    if constexpr (N >= 4) {
#pragma unroll
      for (int32_t i = 0; i < N / 4; ++i) static_cast<uint32_t*>(shared)[i] = b.word[i];
    } else if constexpr (N == 2) {
      *static_cast<uint16_t*>(shared) = b.half;
    }
  }
}

__device__ __forceinline__ void wait_for_copies() {
  if constexpr (kArch >= 80) asm volatile("cp.async.wait_all;" ::: "memory");
}

}  // namespace fulmen::cuda
