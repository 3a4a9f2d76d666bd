// SPDX-License-Identifier: Apache-2.0
// Loads and stores of 1 to 16 bytes of global memory. Plain ones: L1::no_allocate costs up to 4 % of the bandwidth
// (docs/kernels/memory_bound.md). None is .nc: a predecessor may still be writing when a dependent launch starts.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

// N bytes as registers.
template <int32_t N>
struct Bits {
  uint32_t word[N / 4];
};
template <>
struct Bits<2> {
  uint16_t half;
};
template <>
struct Bits<1> {
  uint8_t byte;
};

// Vectors beyond 16 bytes (f32 beside 16-bit elements) go in pieces of 16.
template <int32_t N, class F>
__device__ __forceinline__ void each_piece(F f) {
#pragma unroll
  for (int32_t i = 0; i < N / 16; ++i) f(i);
}

// One vector that is read once.
template <int32_t N>
__device__ __forceinline__ Bits<N> load_stream(const void* p) {
  Bits<N> b;
  if constexpr (N > 16) {
    each_piece<N>([&](int32_t i) {
      const Bits<16> piece = load_stream<16>(static_cast<const char*>(p) + 16 * i);
      for (int32_t k = 0; k < 4; ++k) b.word[4 * i + k] = piece.word[k];
    });
  } else if constexpr (N == 16) {
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b.word[0]), "=r"(b.word[1]), "=r"(b.word[2]), "=r"(b.word[3])
                 : "l"(p));
  } else if constexpr (N == 8) {
    asm volatile("ld.global.v2.u32 {%0, %1}, [%2];" : "=r"(b.word[0]), "=r"(b.word[1]) : "l"(p));
  } else if constexpr (N == 4) {
    asm volatile("ld.global.u32 %0, [%1];" : "=r"(b.word[0]) : "l"(p));
  } else if constexpr (N == 2) {
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(b.half) : "l"(p));
  } else {
    b.byte = *static_cast<const volatile uint8_t*>(p);
  }
  return b;
}

// One vector that many rows or CTAs read.
template <int32_t N>
__device__ __forceinline__ Bits<N> load_shared_by_rows(const void* p) {
  return load_stream<N>(p);
}

__device__ __forceinline__ void prefetch_to_l2(const void* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// What another CTA of this launch wrote, after a fence and a barrier; past L1, which may hold an older copy.
__device__ __forceinline__ Bits<16> load_coherent_16(const void* p) {
  Bits<16> b;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(b.word[0]), "=r"(b.word[1]), "=r"(b.word[2]), "=r"(b.word[3])
               : "l"(p)
               : "memory");
  return b;
}
__device__ __forceinline__ Bits<8> load_coherent_8(const void* p) {
  Bits<8> b;
  asm volatile("ld.global.cg.v2.u32 {%0, %1}, [%2];" : "=r"(b.word[0]), "=r"(b.word[1]) : "l"(p) : "memory");
  return b;
}

__device__ __forceinline__ int32_t load_coherent_4(const void* p) {
  int32_t x;
  asm volatile("ld.global.cg.s32 %0, [%1];" : "=r"(x) : "l"(p) : "memory");
  return x;
}

template <int32_t N>
__device__ __forceinline__ void store_stream(void* p, const Bits<N>& b) {
  if constexpr (N > 16) {
    each_piece<N>([&](int32_t i) {
      store_stream<16>(static_cast<char*>(p) + 16 * i,
                       Bits<16>{b.word[4 * i], b.word[4 * i + 1], b.word[4 * i + 2], b.word[4 * i + 3]});
    });
  } else if constexpr (N == 16) {
    asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(b.word[0]), "r"(b.word[1]), "r"(b.word[2]),
                 "r"(b.word[3])
                 : "memory");
  } else if constexpr (N == 8) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(p), "r"(b.word[0]), "r"(b.word[1]) : "memory");
  } else if constexpr (N == 4) {
    asm volatile("st.global.u32 [%0], %1;" ::"l"(p), "r"(b.word[0]) : "memory");
  } else if constexpr (N == 2) {
    asm volatile("st.global.u16 [%0], %1;" ::"l"(p), "h"(b.half) : "memory");
  } else {
    *static_cast<volatile uint8_t*>(p) = b.byte;
  }
}

}  // namespace fulmen::cuda
