// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/types.h>
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

template <class T>
float widen(T x) {
  return to_f32(x);
}
template <class T>
T narrow(float x) {
  return from_f32<T>(x);
}
template <class T>
uint32_t narrow2(float low, float high) {
  return uint32_t(from_f32<T>(high).bits) << 16 | from_f32<T>(low).bits;
}
// Two bytes of four FP8 values, as two f16 or bf16.
template <class T, class F>
uint32_t widen_bytes(uint32_t x, int32_t low, int32_t high) {
  return narrow2<T>(to_f32(F{uint8_t(x >> (8 * low))}), to_f32(F{uint8_t(x >> (8 * high))}));
}
template <class T, class F>
void widen_even_odd(uint32_t x, uint32_t& even, uint32_t& odd) {
  even = widen_bytes<T, F>(x, 0, 2), odd = widen_bytes<T, F>(x, 1, 3);
}
template <class T, class F>
void widen_low_high(uint32_t x, uint32_t& low, uint32_t& high) {
  low = widen_bytes<T, F>(x, 0, 1), high = widen_bytes<T, F>(x, 2, 3);
}
template <class T>
uint16_t narrow2_fp8(float low, float high) {
  return uint16_t(from_f32<T>(high).bits << 8 | from_f32<T>(low).bits);
}

}  // namespace fulmen::cuda
