// SPDX-License-Identifier: Apache-2.0
// The vector types that variants compute with: LaneF32 and LaneI32 wrap F32 and I32 for code outside the target region.
// A variant's logit() is compiled without FULMEN_CPU_BEGIN, so GCC would pass a bare vector register by another
// convention than these operators expect wherever it does not inline. A type with its own copy constructor always
// travels by address, which is the same convention everywhere.
#pragma once
#include <fulmen/cpu/simd.h>

FULMEN_CPU_BEGIN

struct LaneF32 {
  F32 x;
  LaneF32() : x(zeros()) {}
  explicit LaneF32(float value) : x(splat(value)) {}
  explicit LaneF32(F32 value) : x(value) {}
  LaneF32(const LaneF32& other) : x(other.x) {}
  LaneF32& operator=(const LaneF32& other) {
    x = other.x;
    return *this;
  }
};
struct LaneI32 {
  I32 x;
  LaneI32() : x(splat_i(0)) {}
  explicit LaneI32(int32_t value) : x(splat_i(value)) {}
  explicit LaneI32(I32 value) : x(value) {}
  LaneI32(const LaneI32& other) : x(other.x) {}
  LaneI32& operator=(const LaneI32& other) {
    x = other.x;
    return *this;
  }
};

inline LaneF32 operator+(const LaneF32& a, const LaneF32& b) { return LaneF32(a.x + b.x); }
inline LaneF32 operator-(const LaneF32& a, const LaneF32& b) { return LaneF32(a.x - b.x); }
inline LaneF32 operator*(const LaneF32& a, const LaneF32& b) { return LaneF32(a.x * b.x); }
inline LaneF32 operator/(const LaneF32& a, const LaneF32& b) { return LaneF32(a.x / b.x); }
inline LaneF32 operator-(const LaneF32& a) { return LaneF32(zeros() - a.x); }
inline LaneF32 fma(const LaneF32& a, const LaneF32& b, const LaneF32& c) { return LaneF32(fma(a.x, b.x, c.x)); }
inline LaneF32 max(const LaneF32& a, const LaneF32& b) { return LaneF32(max(a.x, b.x)); }
inline LaneF32 min(const LaneF32& a, const LaneF32& b) { return LaneF32(min(a.x, b.x)); }
inline LaneF32 sqrt(const LaneF32& a) { return LaneF32(sqrt(a.x)); }
inline LaneF32 exp(const LaneF32& a) { return LaneF32(exp(a.x)); }
inline LaneF32 exp2(const LaneF32& a) { return LaneF32(exp2(a.x)); }
inline LaneF32 tanh(const LaneF32& a) { return LaneF32(tanh(a.x)); }
inline LaneI32 operator+(const LaneI32& a, const LaneI32& b) { return LaneI32(a.x + b.x); }
inline LaneI32 operator-(const LaneI32& a, const LaneI32& b) { return LaneI32(a.x - b.x); }
inline LaneF32 cast_to(const LaneF32&, const LaneI32& a) { return LaneF32(to_float(a.x)); }

FULMEN_CPU_END
