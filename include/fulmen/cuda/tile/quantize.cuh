// SPDX-License-Identifier: Apache-2.0
// Scales of FP8 values.
#pragma once
#include <fulmen/cuda/types.h>
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

template <class Fp8>
inline constexpr float kLargest = is_same<Fp8, e4m3> ? 448.0f : 57344.0f;

// The value of a 1, from the largest magnitude. At least 2^-96, whose reciprocal is a normal number.
template <class Fp8>
__device__ __forceinline__ float scale_for(float magnitude, bool pow2) {
  const float scale = fmaxf(magnitude / kLargest<Fp8>, 0x1p-96f);
  if (!pow2) return scale;
  const uint32_t bits = bit_cast<uint32_t>(scale);  // up to the next power of two
  return bit_cast<float>((bits + 0x7fffffu) & 0xff800000u);
}

}  // namespace fulmen::cuda
