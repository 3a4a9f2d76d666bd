// SPDX-License-Identifier: Apache-2.0
// Level "scalar": plain C++ over four lanes. Runs on any machine; compilers turn the loops into whatever it has.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cpu/level.h>

#include <cmath>

FULMEN_CPU_BEGIN

inline constexpr int32_t kLanes = 4;
struct F32 {
  float v[kLanes];
  F32() = default;
  explicit F32(float x) {
    for (float& lane : v) lane = x;
  }
};
struct I32 {
  int32_t v[kLanes];
  I32() = default;
  explicit I32(int32_t x) {
    for (int32_t& lane : v) lane = x;
  }
};
struct Mask {
  bool v[kLanes];
};

template <class R, class F>
inline R each(F f) {
  R r;
  for (int32_t i = 0; i < kLanes; ++i) r.v[i] = f(i);
  return r;
}

inline F32 splat(float x) { return F32(x); }
inline F32 zeros() { return splat(0); }
template <class T>
inline F32 load_n(const T* p, int32_t n) {
  return each<F32>([&](int32_t i) { return i < n ? to_f32(p[i]) : 0.f; });
}
template <class T>
inline F32 load(const T* p) {
  return load_n(p, kLanes);
}
template <class T>
inline void store_n(T* p, F32 x, int32_t n) {
  for (int32_t i = 0; i < n; ++i) p[i] = from_f32<T>(x.v[i]);
}
template <class T>
inline void store(T* p, F32 x) {
  store_n(p, x, kLanes);
}

inline F32 operator+(F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return a.v[i] + b.v[i]; });
}
inline F32 operator-(F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return a.v[i] - b.v[i]; });
}
inline F32 operator*(F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return a.v[i] * b.v[i]; });
}
inline F32 operator/(F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return a.v[i] / b.v[i]; });
}
inline F32 fma(F32 a, F32 b, F32 c) {
  return each<F32>([&](int32_t i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline F32 max(F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32 min(F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline F32 sqrt(F32 a) {
  return each<F32>([&](int32_t i) { return std::sqrt(a.v[i]); });
}
inline F32 round(F32 a) {  // to nearest even, as the other levels do
  return each<F32>([&](int32_t i) { return std::nearbyint(a.v[i]); });
}

// Lane i and lane i ^ kDistance change places; kDistance is a power of two.
template <int kDistance>
inline F32 swap_lanes(F32 a) {
  return each<F32>([&](int32_t i) { return a.v[i ^ kDistance]; });
}
inline float reduce_add(F32 a) { return (a.v[0] + a.v[1]) + (a.v[2] + a.v[3]); }
inline float reduce_max(F32 a) {
  float top = a.v[0];
  for (float lane : a.v) top = lane > top ? lane : top;
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
inline I32 operator+(I32 a, I32 b) {  // wraps, as registers do
  return each<I32>([&](int32_t i) { return int32_t(uint32_t(a.v[i]) + uint32_t(b.v[i])); });
}
inline I32 operator-(I32 a, I32 b) {
  return each<I32>([&](int32_t i) { return int32_t(uint32_t(a.v[i]) - uint32_t(b.v[i])); });
}
inline I32 operator&(I32 a, I32 b) {
  return each<I32>([&](int32_t i) { return a.v[i] & b.v[i]; });
}
inline I32 operator|(I32 a, I32 b) {
  return each<I32>([&](int32_t i) { return a.v[i] | b.v[i]; });
}
template <int kBits>
inline I32 shift_left(I32 a) {
  return each<I32>([&](int32_t i) { return int32_t(uint32_t(a.v[i]) << kBits); });
}
template <int kBits>
inline I32 shift_right(I32 a) {
  return each<I32>([&](int32_t i) { return int32_t(uint32_t(a.v[i]) >> kBits); });
}
inline F32 to_float(I32 a) {
  return each<F32>([&](int32_t i) { return float(a.v[i]); });
}
inline F32 cast_to(F32, I32 a) { return to_float(a); }  // for variants
inline I32 to_int(F32 a) {                              // a holds whole numbers
  return each<I32>([&](int32_t i) { return int32_t(a.v[i]); });
}
inline I32 bits_of(F32 a) {
  return each<I32>([&](int32_t i) { return bit_cast<int32_t>(a.v[i]); });
}
inline F32 float_from_bits(I32 a) {
  return each<F32>([&](int32_t i) { return bit_cast<float>(a.v[i]); });
}

inline Mask operator<(F32 a, F32 b) {
  return each<Mask>([&](int32_t i) { return a.v[i] < b.v[i]; });
}
inline Mask operator<(I32 a, I32 b) {
  return each<Mask>([&](int32_t i) { return a.v[i] < b.v[i]; });
}
inline Mask operator==(I32 a, I32 b) {
  return each<Mask>([&](int32_t i) { return a.v[i] == b.v[i]; });
}
inline F32 select(Mask m, F32 a, F32 b) {
  return each<F32>([&](int32_t i) { return m.v[i] ? a.v[i] : b.v[i]; });
}
inline Mask mask_from_bits(uint32_t bits) {
  return each<Mask>([&](int32_t i) { return (bits >> i & 1u) != 0; });
}
inline uint32_t bits_from_mask(Mask m) {
  uint32_t bits = 0;
  for (int32_t i = 0; i < kLanes; ++i) bits |= uint32_t(m.v[i]) << i;
  return bits;
}
inline void prefetch(const void* p) { __builtin_prefetch(p); }
inline void prefetch_l2(const void* p) { __builtin_prefetch(p, 0, 2); }

inline I32 load_i(const int32_t* p) {
  return each<I32>([&](int32_t i) { return p[i]; });
}
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
