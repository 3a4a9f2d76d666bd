// SPDX-License-Identifier: Apache-2.0
// Functions of floats without branches, tables or calls, so that a compiler makes vectors of a loop over them. For
// texts that the host's compiler turns into loops (cpu/text). Polynomials are fits of our own; a unit is 2^-24.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::math::loop {

// x as a sum of a whole number and |part| <= 1/2; |x| < 2^21.
struct Split {
  float whole, part;
  uint32_t bits;  // of the whole number, two's complement
};
FULMEN_FN Split split(float x) {
  constexpr float kShift = 0x1.8p23f;  // adding it leaves no bit below 1
  const float shifted = x + kShift;
  return {shifted - kShift, x - (shifted - kShift), bit_cast<uint32_t>(shifted) - bit_cast<uint32_t>(kShift)};
}

// 2^(n + r) for |r| <= 1/2 and -150 <= n <= 129.
FULMEN_FN float exp2_parts(uint32_t n, float r) {
  float p = 1.54697322e-4f;
  p = p * r + 1.34004327e-3f;
  p = p * r + 9.61802527e-3f;
  p = p * r + 5.55032715e-2f;
  p = p * r + 2.40226507e-1f;
  p = p * r + 6.93147182e-1f;
  p = p * r + 1.f;
  const uint32_t half = uint32_t(int32_t(n) >> 1);  // two factors: 2^n itself may be no number
  return p * bit_cast<float>((half + 127) << 23) * bit_cast<float>((n - half + 127) << 23);
}

// 2^x, also where it is 0, subnormal or infinite. Relative error <= 2 units.
FULMEN_FN float exp2(float x) {
  float c = x < -150.f ? -150.f : x;  // NaN stays
  c = c > 129.f ? 129.f : c;
  const Split s = split(c);
  return exp2_parts(s.bits, s.part);
}

// e^x. ln 2 is subtracted in two parts, so that a large |x| loses nothing. Relative error <= 3 units.
FULMEN_FN float exp(float x) {
  float c = x < -104.f ? -104.f : x;
  c = c > 89.f ? 89.f : c;
  const Split s = split(c * 1.44269504f);
  const float r = (c - s.whole * 0.693359375f) + s.whole * 2.12194440e-4f;
  return exp2_parts(s.bits, r * 1.44269504f);
}

// log2(x): -inf at 0, NaN below. Relative error <= 3 units.
FULMEN_FN float log2(float x) {
  const bool tiny = x < 0x1p-126f;
  const float scaled = tiny ? x * 0x1p24f : x;
  const uint32_t bits = bit_cast<uint32_t>(scaled);
  const uint32_t e = uint32_t(int32_t(bits - 0x3f3504f3u) >> 23);  // of a mantissa in √½ … √2
  const float f = bit_cast<float>(bits - (e << 23)) - 1;
  float p = 9.72410068e-2f;
  p = p * f - 1.69188157e-1f;
  p = p * f + 1.72025889e-1f;
  p = p * f - 1.78882942e-1f;
  p = p * f + 2.05044583e-1f;
  p = p * f - 2.40469024e-1f;
  p = p * f + 2.88576186e-1f;
  p = p * f - 3.60674113e-1f;
  p = p * f + 4.80897903e-1f;
  p = p * f - 7.21347511e-1f;
  p = p * f + 1.44269502f;
  const float y = float(int32_t(e)) - (tiny ? 24.f : 0.f) + f * p;
  const float edge = x == 0 ? bit_cast<float>(0xff800000u) : x > 0 ? x : bit_cast<float>(0x7fc00000u);
  return x > 0 && x < bit_cast<float>(0x7f800000u) ? y : edge;
}

// tanh(x). Relative error <= 4 units.
FULMEN_FN float tanh(float x) {
  const float magnitude = x < 0 ? -x : x, z = x * x;
  float p = 2.24905158e-3f;
  p = p * z - 8.30480270e-3f;
  p = p * z + 2.17568055e-2f;
  p = p * z - 5.39577529e-2f;
  p = p * z + 1.33332968e-1f;
  p = p * z - 3.33333343e-1f;
  const float e = exp2(magnitude * -2.88539008f), far = (1 - e) / (1 + e);
  return magnitude < 0.625f ? x + x * z * p : x < 0 ? -far : far;
}

}  // namespace fulmen::math::loop
