// SPDX-License-Identifier: Apache-2.0
// Scalar functions that variants and kernels share on host and device. SIMD types bring their own by argument-dependent
// lookup, so a variant writes `using math::tanh; tanh(x)` and serves double, float, F32 and device float alike.
#pragma once
#include <fulmen/core/loop_math.h>

#if !defined(__CUDACC_RTC__)
#include <cmath>
#endif

namespace fulmen::math {

inline constexpr float kLog2e = 1.44269504f;
inline constexpr float kLn2 = 0.693147181f;

#if defined(__CUDA_ARCH__)
FULMEN_FN float exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FULMEN_FN float log2(float x) {
  float y;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
FULMEN_FN float tanh(float x) { return ::tanhf(x); }
#elif defined(FULMEN_HOST_TEXT)  // a user's text, in loops
using loop::exp2, loop::log2, loop::tanh;
#elif !defined(__CUDACC_RTC__)
inline float exp2(float x) { return std::exp2(x); }
inline double exp2(double x) { return std::exp2(x); }
inline float log2(float x) { return std::log2(x); }
inline double log2(double x) { return std::log2(x); }
inline float tanh(float x) { return std::tanh(x); }
inline double tanh(double x) { return std::tanh(x); }
#endif

FULMEN_FN float cast_to(float, int32_t i) { return float(i); }
FULMEN_FN double cast_to(double, int32_t i) { return double(i); }

template <class T>
FULMEN_FN constexpr T min(T a, T b) {
  return b < a ? b : a;
}
template <class T>
FULMEN_FN constexpr T max(T a, T b) {
  return a < b ? b : a;
}
FULMEN_FN constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace fulmen::math
