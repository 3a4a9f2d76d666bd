// SPDX-License-Identifier: Apache-2.0
// What the FP8 quantizers share: the largest magnitude of a row and the scaled store.
#pragma once
#include <fulmen/cpu/simd.h>

FULMEN_CPU_BEGIN

inline F32 absolute(F32 x) { return float_from_bits(bits_of(x) & splat_i(0x7fffffff)); }

// max |x_i|, 0 of nothing. NaN is passed over: max(a, b) is b where a is NaN.
template <class T>
float largest_magnitude(const T* x, int64_t n) {
  F32 top[2] = {zeros(), zeros()};
  int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    top[0] = max(absolute(load(x + i)), top[0]);
    top[1] = max(absolute(load(x + i + kLanes)), top[1]);
  }
  for (; i < n; i += kLanes)
    top[0] = max(absolute(n - i >= kLanes ? load(x + i) : load_n(x + i, int32_t(n - i))), top[0]);
  return reduce_max(max(top[0], top[1]));
}

template <class T, class O>
void scale_and_store(const T* x, float factor, O* out, int64_t n) {
  const F32 f = splat(factor);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i) * f);
  if (const int32_t left = int32_t(n - i); left > 0) store_n(out + i, load_n(x + i, left) * f, left);
}

template <class O>
inline constexpr float kLargestFp8 = dtype_of<O> == DType::kE4M3 ? 448.f : 57344.f;

FULMEN_CPU_END
