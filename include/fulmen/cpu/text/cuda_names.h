// SPDX-License-Identifier: Apache-2.0
// The names that CUDA's compiler knows without an include, for texts that the host's compiler reads. Those of floats
// that loops are made of are branch-free (core/loop_math.h); all others are the C library's.
#pragma once
#include <fulmen/core/loop_math.h>
#include <math.h>

// NOLINTBEGIN: these names are CUDA's. Its keywords are defined by the compiler's flags.
namespace fulmen {

inline float exp2f(float x) { return math::loop::exp2(x); }
inline float expf(float x) { return math::loop::exp(x); }
inline float exp10f(float x) { return math::loop::exp2(x * 3.32192809f); }
inline float log2f(float x) { return math::loop::log2(x); }
inline float logf(float x) { return math::loop::log2(x) * 0.693147181f; }
inline float tanhf(float x) { return math::loop::tanh(x); }
inline float rsqrtf(float x) { return 1 / __builtin_sqrtf(x); }
inline float fmaxf(float a, float b) { return a != a || b > a ? b : a; }
inline float fminf(float a, float b) { return a != a || b < a ? b : a; }
inline float fdividef(float a, float b) { return a / b; }
inline float normcdff(float x) { return 0.5f * ::erfcf(x * -0.707106781f); }

inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return ::log10f(x); }
inline float __powf(float x, float y) { return ::powf(x, y); }
inline float __sinf(float x) { return ::sinf(x); }
inline float __cosf(float x) { return ::cosf(x); }
inline float __tanf(float x) { return ::tanf(x); }
inline float __tanhf(float x) { return tanhf(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float __frsqrt_rn(float x) { return rsqrtf(x); }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.f) : 0.f; }
inline int32_t __float_as_int(float x) { return bit_cast<int32_t>(x); }
inline uint32_t __float_as_uint(float x) { return bit_cast<uint32_t>(x); }
inline float __int_as_float(int32_t x) { return bit_cast<float>(x); }
inline float __uint_as_float(uint32_t x) { return bit_cast<float>(x); }
inline int32_t __float2int_rn(float x) { return int32_t(__builtin_rintf(x)); }
inline int32_t __float2int_rz(float x) { return int32_t(x); }
inline float __int2float_rn(int32_t x) { return float(x); }
inline int32_t __popc(uint32_t x) { return __builtin_popcount(x); }
template <class T>
inline T __ldg(const T* p) {
  return *p;
}

template <class A, class B>
inline auto max(A a, B b) -> decltype(a + b) {
  return a > b ? a : b;
}
template <class A, class B>
inline auto min(A a, B b) -> decltype(a + b) {
  return a < b ? a : b;
}

}  // namespace fulmen
// NOLINTEND
