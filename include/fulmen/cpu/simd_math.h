// SPDX-License-Identifier: Apache-2.0
// exp2, exp and tanh over F32, written once in terms of the vocabulary. A unit is 2^-24, half the spacing of floats
// at 1.
#pragma once
#include <fulmen/cpu/level.h>

FULMEN_CPU_BEGIN

// 2^(n + r) for |r| <= 1/2 and a whole n in -126..127: the Taylor series of exp(r ln 2) to r^7, truncated below 2^-27.
inline F32 exp2_parts(F32 n, F32 r) {
  F32 p = splat(1.52527338e-5f);
  p = fma(p, r, splat(1.54035304e-4f));
  p = fma(p, r, splat(1.33335581e-3f));
  p = fma(p, r, splat(9.61812911e-3f));
  p = fma(p, r, splat(5.55041087e-2f));
  p = fma(p, r, splat(2.40226507e-1f));
  p = fma(p, r, splat(6.93147181e-1f));
  p = fma(p, r, splat(1.f));
  return p * float_from_bits(shift_left<23>(to_int(n) + splat_i(127)));
}

// 2^x for x <= 127; 0 for x < -126 (there are no subnormal results), so exp2(-inf) = 0; NaN of NaN, which max() gives
// back where it comes second. Relative error <= 2 units.
inline F32 exp2(F32 x) {
  const F32 clamped = max(splat(-126.f), x);
  const F32 n = round(clamped);
  return select(x < splat(-126.f), zeros(), exp2_parts(n, clamped - n));
}

// e^x for x <= 88; 0 for x < -87. Relative error <= 3 units: ln 2 is subtracted in two parts, so large |x| loses
// nothing.
inline F32 exp(F32 x) {
  const F32 clamped = max(x, splat(-87.f));
  const F32 n = round(clamped * splat(1.44269504f));
  const F32 r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), clamped));
  return select(x < splat(-87.f), zeros(), exp2_parts(n, r * splat(1.44269504f)));
}

// tanh(x) = sign(x) (1 - e) / (1 + e), e = exp(-2|x|). Absolute error <= 2 units; not for relative accuracy near 0.
inline F32 tanh(F32 x) {
  const I32 sign = bits_of(x) & splat_i(int32_t(0x80000000u));
  const F32 magnitude = float_from_bits(bits_of(x) & splat_i(0x7fffffff));
  const F32 e = exp2(magnitude * splat(-2.88539008f));
  return float_from_bits(bits_of((splat(1.f) - e) / (splat(1.f) + e)) | sign);
}

FULMEN_CPU_END
