// SPDX-License-Identifier: Apache-2.0
// The two 8-bit floats of the OCP specification as storage types.
//   e4m3: bias 7, no infinity, NaN = 0x7f, largest 448.    e5m2: bias 15, IEEE-like, largest 57344.
// Conversion from f32 rounds to nearest even and saturates to the largest finite value; NaN stays NaN.
#pragma once
#include <fulmen/core/f16.h>
#include <fulmen/core/portable.h>

namespace fulmen {

struct e4m3 {
  uint8_t bits;
};
struct e5m2 {
  uint8_t bits;
};

FULMEN_FN constexpr float to_f32(e4m3 x) {
  const uint32_t sign = uint32_t(x.bits & 0x80u) << 24;
  const uint32_t magnitude = x.bits & 0x7fu;
  if (magnitude == 0x7fu) return bit_cast<float>(sign | 0x7fc00000u);
  const float scaled = bit_cast<float>(magnitude << 20) * 0x1p120f;  // bias 127 - 7
  return bit_cast<float>(sign | bit_cast<uint32_t>(scaled));
}

FULMEN_FN constexpr float to_f32(e5m2 x) { return to_f32(f16{uint16_t(uint16_t(x.bits) << 8)}); }

namespace detail {
// Rounds |x| to `mantissa` bits with the least normal exponent `min_exponent`; returns the code without its sign.
FULMEN_FN constexpr uint32_t round_fp8(float x, int32_t mantissa, int32_t min_exponent, uint32_t largest) {
  const uint32_t magnitude = bit_cast<uint32_t>(x) & 0x7fffffffu;
  const uint32_t least_normal = uint32_t(127 + min_exponent) << 23;
  uint32_t code;
  if (magnitude < least_normal) {  // subnormal: an f32 addition at the right exponent rounds to nearest even
    const float anchor = bit_cast<float>(uint32_t(127 + min_exponent + 23 - mantissa) << 23);
    code = bit_cast<uint32_t>(bit_cast<float>(magnitude) + anchor) - bit_cast<uint32_t>(anchor);
  } else {
    const int32_t drop = 23 - mantissa;
    const uint32_t odd = magnitude >> drop & 1u;
    const uint32_t rounded = (magnitude + (1u << (drop - 1)) - 1u + odd) >> drop;
    code = rounded - (uint32_t(126 + min_exponent) << mantissa);
  }
  return code > largest ? largest : code;
}
}  // namespace detail

FULMEN_FN constexpr e4m3 to_e4m3(float x) {
  const uint32_t sign = bit_cast<uint32_t>(x) >> 24 & 0x80u;
  if (x != x) return {uint8_t(sign | 0x7fu)};
  return {uint8_t(sign | detail::round_fp8(x, 3, -6, 0x7eu))};
}

FULMEN_FN constexpr e5m2 to_e5m2(float x) {
  const uint32_t sign = bit_cast<uint32_t>(x) >> 24 & 0x80u;
  if (x != x) return {uint8_t(sign | 0x7eu)};
  return {uint8_t(sign | detail::round_fp8(x, 2, -14, 0x7bu))};
}

}  // namespace fulmen
