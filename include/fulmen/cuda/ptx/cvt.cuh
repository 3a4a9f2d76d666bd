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
