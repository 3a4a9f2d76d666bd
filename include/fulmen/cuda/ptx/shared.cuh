// SPDX-License-Identifier: Apache-2.0
// A CTA's dynamic shared memory: by pointer for ordinary data, by 32-bit address for the instructions that take one.
#pragma once
#include <fulmen/cuda/ptx/memory.cuh>

namespace fulmen::cuda {

__device__ __forceinline__ char* dynamic_shared() {
  extern __shared__ __align__(128) char fulmen_dynamic_shared[];
  return fulmen_dynamic_shared;
}
__device__ __forceinline__ uint32_t shared_address(const void* p) { return uint32_t(__cvta_generic_to_shared(p)); }

template <int32_t N>
__device__ __forceinline__ Bits<N> load_shared(uint32_t address) {
  Bits<N> b;
  if constexpr (N == 16)
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b.word[0]), "=r"(b.word[1]), "=r"(b.word[2]), "=r"(b.word[3])
                 : "r"(address));
  else
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(b.word[0]), "=r"(b.word[1]) : "r"(address));
  return b;
}

template <int32_t N>
__device__ __forceinline__ void store_shared(uint32_t address, const Bits<N>& b) {
  if constexpr (N == 16)
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(b.word[0]), "r"(b.word[1]),
                 "r"(b.word[2]), "r"(b.word[3])
                 : "memory");
  else if constexpr (N == 4)
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(b.word[0]) : "memory");
  else
    asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(address), "r"(b.word[0]), "r"(b.word[1]) : "memory");
}

}  // namespace fulmen::cuda
