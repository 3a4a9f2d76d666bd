// SPDX-License-Identifier: Apache-2.0
// Conversions between f32 and the narrow floats, by instruction where the architecture has one. Round to nearest even;
// FP8 saturates. Our own, so that kernels need none of the toolkit's headers
// (docs/decisions/0010-own-fp-conversions.md).
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/types.h>
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(f16 x) {
  float y;
  asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
  return y;
}
__device__ __forceinline__ float widen(bf16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }
__device__ __forceinline__ float widen(e4m3 x) {
  if constexpr (kArch < 89) return to_f32(x);
  uint32_t pair;  // two f16
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(uint16_t(x.bits)));
  return widen(f16{uint16_t(pair)});
}
__device__ __forceinline__ float widen(e5m2 x) { return widen(f16{uint16_t(uint16_t(x.bits) << 8)}); }

// Two values to one word, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t narrow2(float low, float high) {
  uint32_t word;
  if constexpr (is_same<T, f16> && kArch >= 80) {
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  } else if constexpr (is_same<T, f16>) {
    uint16_t l, h;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(l) : "f"(low));
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(high));
    word = uint32_t(h) << 16 | l;
  } else if constexpr (is_same<T, bf16> && kArch >= 80) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  } else {
    word = uint32_t(to_bf16(high).bits) << 16 | to_bf16(low).bits;
  }
  return word;
}

// Two FP8 values to one half word, the first in the low byte.
template <class T>
__device__ __forceinline__ uint16_t narrow2_fp8(float low, float high) {
  if constexpr (kArch < 89) return uint16_t(from_f32<T>(high).bits << 8 | from_f32<T>(low).bits);
  uint16_t pair;
  if constexpr (is_same<T, e4m3>)
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  else
    asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(high), "f"(low));
  return pair;
}

// Two FP8 values, in bytes 1 and 3 of a word whose others are 0, as two f16 or bf16. The narrow exponent and mantissa
// are put in place, then a product with a power of two, which is exact, moves the bias.
template <class T, class F>
__device__ __forceinline__ uint32_t widen2_in_place(uint32_t w) {
  if constexpr (is_same<T, f16> && is_same<F, e5m2>) return w;
  constexpr int32_t kShift = (is_same<T, f16> ? 0 : 3) + (is_same<F, e4m3> ? 1 : 0);
  constexpr uint32_t kFactor = is_same<T, f16> ? 0x5c005c00u : is_same<F, e4m3> ? 0x7b807b80u : 0x77807780u;
  const uint32_t placed = (w & 0x80008000u) | ((w & 0x7f007f00u) >> kShift);
  uint32_t out = 0;
  if constexpr (is_same<T, f16>)
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(placed), "r"(kFactor));
  else if constexpr (kArch >= 80)
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(placed), "r"(kFactor), "r"(0x80008000u));
  return out;
}

// Bytes 0 and 2, and bytes 1 and 3, of a word of four FP8 values.
template <class T, class F>
__device__ __forceinline__ void widen_even_odd(uint32_t x, uint32_t& even, uint32_t& odd) {
  if constexpr (is_same<T, f16> && is_same<F, e4m3> && kArch >= 89) {
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(even) : "h"(uint16_t(__byte_perm(x, 0, 0x20))));
    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(odd) : "h"(uint16_t(__byte_perm(x, 0, 0x31))));
  } else {
    even = widen2_in_place<T, F>((x & 0x00ff00ffu) << 8), odd = widen2_in_place<T, F>(x & 0xff00ff00u);
  }
}
// Bytes 0 and 1, and bytes 2 and 3.
template <class T, class F>
__device__ __forceinline__ void widen_low_high(uint32_t x, uint32_t& low, uint32_t& high) {
  widen_even_odd<T, F>(__byte_perm(x, 0, 0x3120), low, high);
}

template <class T>
__device__ __forceinline__ T narrow(float x) {
  if constexpr (is_same<T, float>)
    return x;
  else if constexpr (sizeof(T) == 1)
    return T{uint8_t(narrow2_fp8<T>(x, 0))};
  else
    return T{uint16_t(narrow2<T>(x, 0))};
}

}  // namespace fulmen::cuda
