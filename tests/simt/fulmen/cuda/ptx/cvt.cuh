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
template <class T>
uint16_t narrow2_fp8(float low, float high) {
  return uint16_t(from_f32<T>(high).bits << 8 | from_f32<T>(low).bits);
}

}  // namespace fulmen::cuda
