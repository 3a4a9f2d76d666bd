// SPDX-License-Identifier: Apache-2.0
// bfloat16 as a storage type: the upper half of an f32. Conversions round to nearest even.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen {

struct bf16 {
  uint16_t bits;
};

FULMEN_FN constexpr float to_f32(bf16 x) { return bit_cast<float>(uint32_t(x.bits) << 16); }

FULMEN_FN constexpr bf16 to_bf16(float x) {
  const uint32_t in = bit_cast<uint32_t>(x);
  if ((in & 0x7fffffffu) > 0x7f800000u) return {uint16_t(in >> 16 | 0x40u)};  // NaN stays NaN
  return {uint16_t((in + 0x7fffu + (in >> 16 & 1u)) >> 16)};
}

}  // namespace fulmen
