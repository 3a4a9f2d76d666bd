// SPDX-License-Identifier: Apache-2.0
// Level "scalar": no instruction set assumed. Four lanes in the compilers' portable vectors, which become whatever the
// machine has; plain arrays would do as well but take g++ ten times as long to compile where kernels unroll.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cpu/level.h>

#include <cmath>
#include <cstring>

FULMEN_CPU_BEGIN

inline constexpr int32_t kLanes = 4;
using Float4 = float __attribute__((vector_size(16)));
using Int4 = int32_t __attribute__((vector_size(16)));
using Uint4 = uint32_t __attribute__((vector_size(16)));

struct F32 {
  Float4 v;
  F32() = default;
  F32(Float4 x) : v(x) {}
  explicit F32(float x) : v{x, x, x, x} {}
};
struct I32 {
  Int4 v;
  I32() = default;
  I32(Int4 x) : v(x) {}
  explicit I32(int32_t x) : v{x, x, x, x} {}
};
struct Mask {
  Int4 v;  // all ones or all zeros per lane
};

template <class R, class F>
inline R each(F f) {
  R r;
  for (int32_t i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}
inline Int4 as_int(Float4 x) { return bit_cast<Int4>(x); }
inline Float4 as_float(Int4 x) { return bit_cast<Float4>(x); }
inline Float4 pick(Int4 mask, Float4 a, Float4 b) { return as_float((mask & as_int(a)) | (~mask & as_int(b))); }

inline F32 splat(float x) { return F32(x); }
inline F32 zeros() { return splat(0); }
template <class T>
inline F32 load_n(const T* p, int32_t n) {
  return each<F32>([&](int32_t i) { return i < n ? to_f32(p[i]) : 0.f; });
}
inline F32 load(const float* p) {
  F32 x;
  std::memcpy(&x.v, p, sizeof x.v);
  return x;
}
template <class T>
inline F32 load(const T* p) {
  return each<F32>([&](int32_t i) { return to_f32(p[i]); });
}
template <class T>
inline void store_n(T* p, F32 x, int32_t n) {
  for (int32_t i = 0; i < n; ++i) p[i] = from_f32<T>(x.v[i]);
}
inline void store(float* p, F32 x) { std::memcpy(p, &x.v, sizeof x.v); }
template <class T>
inline void store(T* p, F32 x) {
  store_n(p, x, kLanes);
}

inline F32 operator+(F32 a, F32 b) { return {a.v + b.v}; }
inline F32 operator-(F32 a, F32 b) { return {a.v - b.v}; }
inline F32 operator*(F32 a, F32 b) { return {a.v * b.v}; }
inline F32 operator/(F32 a, F32 b) { return {a.v / b.v}; }
inline F32 fma(F32 a, F32 b, F32 c) { return {a.v * b.v + c.v}; }
inline F32 max(F32 a, F32 b) { return {pick(a.v > b.v, a.v, b.v)}; }
inline F32 min(F32 a, F32 b) { return {pick(a.v < b.v, a.v, b.v)}; }
inline F32 sqrt(F32 a) {
  return each<F32>([&](int32_t i) { return std::sqrt(a.v[i]); });
}
// To nearest even, as the other levels do: adding 2^23 with x's sign leaves no bit below 1, and larger x have none.
inline F32 round(F32 a) {
  const Int4 sign = as_int(a.v) & int32_t(0x80000000u), magnitude = as_int(a.v) & 0x7fffffff;
  const Float4 shift = as_float(sign | 0x4b000000);
  const Float4 rounded = as_float(as_int(a.v + shift - shift) | sign);
  return {pick(magnitude < 0x4b000000, rounded, a.v)};
}

// Lane i and lane i ^ kDistance change places; kDistance is a power of two.
template <int kDistance>
inline F32 swap_lanes(F32 a) {
  return each<F32>([&](int32_t i) { return a.v[i ^ kDistance]; });
}
inline float reduce_add(F32 a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
inline float reduce_max(F32 a) {
  float top = a.v[0];
  for (int32_t i = 1; i < kLanes; ++i) top = a.v[i] > top ? a.v[i] : top;
  return top;
}

// Lane i of the result is reduce_add(x[i]).
inline F32 reduce_add_each(const F32 (&x)[kLanes]) {
  return each<F32>([&](int32_t i) { return reduce_add(x[i]); });
}
// x becomes its transpose: lane j of x[i] and lane i of x[j] change places.
inline void transpose(F32 (&x)[kLanes]) {
  for (int32_t i = 0; i < kLanes; ++i) {
    for (int32_t j = 0; j < i; ++j) {
      const float moved = x[i].v[j];
      x[i].v[j] = x[j].v[i];
      x[j].v[i] = moved;
    }
  }
}

// x0 x1 x2 x3 … becomes x1 x0 x3 x2 …
inline F32 swap_pairs(F32 a) {
  return each<F32>([&](int32_t i) { return a.v[i ^ 1]; });
}

// Bit i of the result: byte i is not zero. One call takes kBytes bytes; a whole number of them at every level.
inline constexpr int32_t kBytes = 8;
inline uint64_t nonzero_bits(const uint8_t* p) {
  uint64_t x = 0;
  for (int32_t i = 0; i < 8; ++i) x |= uint64_t(p[i] != 0) << i;
  return x;
}

inline I32 splat_i(int32_t x) { return I32(x); }
inline I32 load_ints(const int32_t* p) {
  return each<I32>([&](int32_t i) { return p[i]; });
}
inline I32 iota(int32_t first) {
  return each<I32>([&](int32_t i) { return first + i; });
}
inline Uint4 as_uint(Int4 x) { return bit_cast<Uint4>(x); }
inline Int4 from_uint(Uint4 x) { return bit_cast<Int4>(x); }
inline I32 operator+(I32 a, I32 b) { return {from_uint(as_uint(a.v) + as_uint(b.v))}; }  // wraps, as registers do
inline I32 operator-(I32 a, I32 b) { return {from_uint(as_uint(a.v) - as_uint(b.v))}; }
inline I32 operator&(I32 a, I32 b) { return {a.v & b.v}; }
inline I32 operator|(I32 a, I32 b) { return {a.v | b.v}; }
template <int kBits>
inline I32 shift_left(I32 a) {
  return {from_uint(as_uint(a.v) << kBits)};
}
template <int kBits>
inline I32 shift_right(I32 a) {
  return {from_uint(as_uint(a.v) >> kBits)};
}
inline F32 to_float(I32 a) { return {__builtin_convertvector(a.v, Float4)}; }
inline F32 cast_to(F32, I32 a) { return to_float(a); }                     // for variants
inline I32 to_int(F32 a) { return {__builtin_convertvector(a.v, Int4)}; }  // a holds whole numbers
inline I32 bits_of(F32 a) { return {as_int(a.v)}; }
inline F32 float_from_bits(I32 a) { return {as_float(a.v)}; }

inline Mask operator<(F32 a, F32 b) { return {a.v < b.v}; }
inline Mask operator<(I32 a, I32 b) { return {a.v < b.v}; }
inline Mask operator==(I32 a, I32 b) { return {a.v == b.v}; }
inline F32 select(Mask m, F32 a, F32 b) { return {pick(m.v, a.v, b.v)}; }
inline Mask mask_from_bits(uint32_t bits) {
  const Int4 bit = {1, 2, 4, 8}, all = {int32_t(bits), int32_t(bits), int32_t(bits), int32_t(bits)};
  return {(all & bit) == bit};
}
inline uint32_t bits_from_mask(Mask m) {
  uint32_t bits = 0;
  for (int32_t i = 0; i < kLanes; ++i) bits |= uint32_t(m.v[i] & 1) << i;
  return bits;
}
inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

inline int32_t compress(float* p, F32 x, uint32_t bits) {
  int32_t n = 0;
  for (int32_t i = 0; i < kLanes; ++i)
    if ((bits >> i & 1u) != 0) p[n++] = x.v[i];
  return n;
}
inline int32_t compress(int32_t* p, I32 x, uint32_t bits) {
  int32_t n = 0;
  for (int32_t i = 0; i < kLanes; ++i)
    if ((bits >> i & 1u) != 0) p[n++] = x.v[i];
  return n;
}

FULMEN_CPU_END
