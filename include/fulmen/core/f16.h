// SPDX-License-Identifier: Apache-2.0
// IEEE half precision as a storage type: 1 sign, 5 exponent, 10 mantissa bits. Conversions round to nearest even.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen {

struct f16 {
  uint16_t bits;
};

FULMEN_FN constexpr float to_f32(f16 x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = x.bits & 0x7fffu;
  if (magnitude >= 0x7c00u) return bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);  // inf, NaN
  // Shift exponent and mantissa into place, then correct the bias (127 - 15) by a multiplication, which also
  // normalises subnormals.
  const float scaled = bit_cast<float>(magnitude << 13) * 0x1p112f;
  return bit_cast<float>(sign | bit_cast<uint32_t>(scaled));
}

FULMEN_FN constexpr f16 to_f16(float x) {
  const uint32_t in = bit_cast<uint32_t>(x);
  const uint16_t sign = uint16_t(in >> 16 & 0x8000u);
  const uint32_t magnitude = in & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {uint16_t(sign | 0x7e00u)};   // NaN stays NaN
  if (magnitude >= 0x477ff000u) return {uint16_t(sign | 0x7c00u)};  // rounds past 65504
  if (magnitude < 0x38800000u) {                                    // subnormal in f16: let an f32 addition round
    const float rounded = bit_cast<float>(magnitude) + 0.5f;
    return {uint16_t(sign | (bit_cast<uint32_t>(rounded) - 0x3f000000u))};
  }
  const uint32_t odd = magnitude >> 13 & 1u;
  return {uint16_t(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13))};
}

}  // namespace fulmen
