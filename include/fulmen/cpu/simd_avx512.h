// SPDX-License-Identifier: Apache-2.0
// Levels "avx512" and "avx512_bf16": sixteen lanes, mask registers.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cpu/level.h>

FULMEN_CPU_BEGIN

inline constexpr int32_t kLanes = 16;
struct F32 {
  __m512 v;
  F32() = default;
  F32(__m512 x) : v(x) {}
  explicit F32(float x) : v(_mm512_set1_ps(x)) {}
};
struct I32 {
  __m512i v;
  I32() = default;
  I32(__m512i x) : v(x) {}
  explicit I32(int32_t x) : v(_mm512_set1_epi32(x)) {}
};
struct Mask {
  __mmask16 v;
};

inline F32 splat(float x) { return {_mm512_set1_ps(x)}; }
inline F32 zeros() { return {_mm512_setzero_ps()}; }
inline I32 splat_i(int32_t x) { return {_mm512_set1_epi32(x)}; }
inline I32 iota(int32_t first) {
  return {_mm512_add_epi32(_mm512_set1_epi32(first),
                           _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15))};
}
inline __mmask16 first_n(int32_t n) { return __mmask16((1u << n) - 1u); }  // n <= 16

inline F32 widen(__m256i x, f16) { return {_mm512_maskz_cvtph_ps(0xffff, x)}; }
inline F32 widen(__m256i x, bf16) {
  const __m512i wide = _mm512_maskz_cvtepu16_epi32(0xffff, x);
  return {_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, wide, 16))};
}
inline F32 widen(__m128i x, e5m2) {  // e5m2 is the upper byte of f16
  return widen(_mm256_slli_epi16(_mm256_cvtepu8_epi16(x), 8), f16{});
}
inline F32 widen(__m128i x, e4m3) {
  const __m512i wide = _mm512_maskz_cvtepu8_epi32(0xffff, x);
  const __m512i magnitude = _mm512_and_si512(wide, _mm512_set1_epi32(0x7f));
  const __m512i sign = _mm512_maskz_slli_epi32(0xffff, _mm512_and_si512(wide, _mm512_set1_epi32(0x80)), 24);
  const __m512 scaled =  // exponent bias 7 to 127; the multiplication normalises subnormals
      _mm512_mul_ps(_mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, magnitude, 20)), _mm512_set1_ps(0x1p120f));
  const __m512i out = _mm512_or_si512(_mm512_castps_si512(scaled), sign);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(0x7f));
  return {_mm512_castsi512_ps(_mm512_mask_mov_epi32(out, nan, _mm512_set1_epi32(0x7fc00000)))};
}
inline F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline F32 load(const f16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), f16{}); }
inline F32 load(const bf16* p) { return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), bf16{}); }
inline F32 load(const e4m3* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), e4m3{}); }
inline F32 load(const e5m2* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), e5m2{}); }
inline F32 load_n(const float* p, int32_t n) { return {_mm512_maskz_loadu_ps(first_n(n), p)}; }
inline F32 load_n(const f16* p, int32_t n) { return widen(_mm256_maskz_loadu_epi16(first_n(n), p), f16{}); }
inline F32 load_n(const bf16* p, int32_t n) { return widen(_mm256_maskz_loadu_epi16(first_n(n), p), bf16{}); }
inline F32 load_n(const e4m3* p, int32_t n) { return widen(_mm_maskz_loadu_epi8(first_n(n), p), e4m3{}); }
inline F32 load_n(const e5m2* p, int32_t n) { return widen(_mm_maskz_loadu_epi8(first_n(n), p), e5m2{}); }

inline __m256i narrow(F32 x, f16) { return _mm512_maskz_cvtps_ph(0xffff, x.v, _MM_FROUND_TO_NEAREST_INT); }
inline __m256i narrow_in_integers(F32 x) {
  const __m512i in = _mm512_castps_si512(x.v);
  const __m512i high = _mm512_maskz_srli_epi32(0xffff, in, 16);
  const __m512i odd = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i sum = _mm512_add_epi32(_mm512_add_epi32(in, _mm512_set1_epi32(0x7fff)), odd);
  const __m512i rounded = _mm512_maskz_srli_epi32(0xffff, sum, 16);
  const __mmask16 nan = _mm512_cmp_ps_mask(x.v, x.v, _CMP_UNORD_Q);
  return _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_mask_or_epi32(rounded, nan, high, _mm512_set1_epi32(0x40)));
}
#if FULMEN_CPU_LEVEL_ID >= 3
// The instruction flushes subnormals, so a register that holds one goes the long way.
inline __m256i narrow(F32 x, bf16) {
  constexpr int kSubnormal = 0x20;
  if (_mm512_fpclass_ps_mask(x.v, kSubnormal) != 0) [[unlikely]]
    return narrow_in_integers(x);
  return (__m256i)_mm512_cvtneps_pbh(x.v);
}
#else
inline __m256i narrow(F32 x, bf16) { return narrow_in_integers(x); }
#endif
inline void store(float* p, F32 x) { _mm512_storeu_ps(p, x.v); }
inline void store(f16* p, F32 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x, f16{})); }
inline void store(bf16* p, F32 x) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(x, bf16{})); }
inline void store_n(float* p, F32 x, int32_t n) { _mm512_mask_storeu_ps(p, first_n(n), x.v); }
inline void store_n(f16* p, F32 x, int32_t n) { _mm256_mask_storeu_epi16(p, first_n(n), narrow(x, f16{})); }
inline void store_n(bf16* p, F32 x, int32_t n) { _mm256_mask_storeu_epi16(p, first_n(n), narrow(x, bf16{})); }
// The 8-bit codes of x; the same steps as detail::round_fp8 of core/fp8.h.
template <int kMantissa, int kMinExponent, int kLargest, int kNaN>
inline __m128i fp8_codes(__m512 x) {
  constexpr int kDrop = 23 - kMantissa, kAnchor = (127 + kMinExponent + kDrop) << 23;
  const __m512i in = _mm512_castps_si512(x), magnitude = _mm512_and_si512(in, _mm512_set1_epi32(0x7fffffff));
  const __m512i odd = _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, magnitude, kDrop), _mm512_set1_epi32(1));
  const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32((1 << (kDrop - 1)) - 1));
  const __m512i rounded = _mm512_maskz_srli_epi32(0xffff, _mm512_add_epi32(magnitude, half), kDrop);
  const __m512i normal = _mm512_sub_epi32(rounded, _mm512_set1_epi32((126 + kMinExponent) << kMantissa));
  const __m512i anchor = _mm512_set1_epi32(kAnchor);
  const __m512 shifted = _mm512_add_ps(_mm512_castsi512_ps(magnitude), _mm512_castsi512_ps(anchor));
  const __mmask16 is_subnormal = _mm512_cmplt_epi32_mask(magnitude, _mm512_set1_epi32((127 + kMinExponent) << 23));
  const __m512i code = _mm512_mask_sub_epi32(normal, is_subnormal, _mm512_castps_si512(shifted), anchor);
  const __m512i finite = _mm512_maskz_min_epi32(0xffff, code, _mm512_set1_epi32(kLargest));
  const __mmask16 is_nan = _mm512_cmpgt_epi32_mask(magnitude, _mm512_set1_epi32(0x7f800000));
  const __m512i sign = _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, in, 24), _mm512_set1_epi32(0x80));
  const __m512i all = _mm512_or_si512(_mm512_mask_mov_epi32(finite, is_nan, _mm512_set1_epi32(kNaN)), sign);
  return _mm512_maskz_cvtepi32_epi8(0xffff, all);
}
inline __m128i narrow(F32 x, e4m3) { return fp8_codes<3, -6, 0x7e, 0x7f>(x.v); }
inline __m128i narrow(F32 x, e5m2) { return fp8_codes<2, -14, 0x7b, 0x7e>(x.v); }
inline void store(e4m3* p, F32 x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(x, e4m3{})); }
inline void store(e5m2* p, F32 x) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(x, e5m2{})); }
inline void store_n(e4m3* p, F32 x, int32_t n) { _mm_mask_storeu_epi8(p, first_n(n), narrow(x, e4m3{})); }
inline void store_n(e5m2* p, F32 x, int32_t n) { _mm_mask_storeu_epi8(p, first_n(n), narrow(x, e5m2{})); }

inline F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 max(F32 a, F32 b) { return {_mm512_maskz_max_ps(0xffff, a.v, b.v)}; }
inline F32 min(F32 a, F32 b) { return {_mm512_maskz_min_ps(0xffff, a.v, b.v)}; }
inline F32 sqrt(F32 a) { return {_mm512_maskz_sqrt_ps(0xffff, a.v)}; }
inline F32 round(F32 a) {
  return {_mm512_maskz_roundscale_ps(0xffff, a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}

// Lane i and lane i ^ kDistance change places; kDistance is a power of two.
template <int kDistance>
inline F32 swap_lanes(F32 a) {
  if constexpr (kDistance >= 4) {
    return {_mm512_maskz_shuffle_f32x4(0xffff, a.v, a.v, kDistance == 8 ? 0x4e : 0xb1)};
  } else {
    return {_mm512_maskz_permute_ps(0xffff, a.v, kDistance == 2 ? 0x4e : 0xb1)};
  }
}
// Both reductions in a fixed order; written out because GCC 12 warns inside its own _mm512_reduce_* and casts.
inline float reduce_add(F32 a) {
  const __m512 b = _mm512_add_ps(a.v, _mm512_maskz_shuffle_f32x4(0xffff, a.v, a.v, 0x4e));
  const __m512 c = _mm512_add_ps(b, _mm512_maskz_shuffle_f32x4(0xffff, b, b, 0xb1));
  __m128 s = _mm512_maskz_extractf32x4_ps(0xf, c, 0);
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float reduce_max(F32 a) {
  const __m512 b = _mm512_maskz_max_ps(0xffff, a.v, _mm512_maskz_shuffle_f32x4(0xffff, a.v, a.v, 0x4e));
  const __m512 c = _mm512_maskz_max_ps(0xffff, b, _mm512_maskz_shuffle_f32x4(0xffff, b, b, 0xb1));
  __m128 s = _mm512_maskz_extractf32x4_ps(0xf, c, 0);
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// Sums of 256-bit halves, of 128-bit quarters and of pairs of lanes: a's on the left, b's on the right.
inline __m512 add_halves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x44), _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xee));
}
inline __m512 add_quarters(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x88), _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0xdd));
}
inline __m512 add_pairs(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
}
// Lane i of the result is the sum of x[i], in the order of a halving tree.
inline F32 reduce_add_each(const F32 (&x)[kLanes]) {
  const __m512 y0 = add_quarters(add_halves(x[0].v, x[4].v), add_halves(x[8].v, x[12].v));
  const __m512 y1 = add_quarters(add_halves(x[1].v, x[5].v), add_halves(x[9].v, x[13].v));
  const __m512 y2 = add_quarters(add_halves(x[2].v, x[6].v), add_halves(x[10].v, x[14].v));
  const __m512 y3 = add_quarters(add_halves(x[3].v, x[7].v), add_halves(x[11].v, x[15].v));
  const __m512 u = add_pairs(y0, y1), w = add_pairs(y2, y3);
  return {_mm512_add_ps(_mm512_shuffle_ps(u, w, 0x88), _mm512_shuffle_ps(u, w, 0xdd))};
}
// x becomes its transpose: lane j of x[i] and lane i of x[j] change places. Bits are moved, never computed with.
inline void transpose(F32 (&x)[kLanes]) {
  __m512 y[16], z[16];
  for (int32_t i = 0; i < 16; i += 4) {
    const __m512 a = _mm512_shuffle_ps(x[i].v, x[i + 1].v, 0x44), b = _mm512_shuffle_ps(x[i].v, x[i + 1].v, 0xee);
    const __m512 c = _mm512_shuffle_ps(x[i + 2].v, x[i + 3].v, 0x44);
    const __m512 d = _mm512_shuffle_ps(x[i + 2].v, x[i + 3].v, 0xee);
    y[i] = _mm512_shuffle_ps(a, c, 0x88), y[i + 1] = _mm512_shuffle_ps(a, c, 0xdd);
    y[i + 2] = _mm512_shuffle_ps(b, d, 0x88), y[i + 3] = _mm512_shuffle_ps(b, d, 0xdd);
  }
  for (int32_t i = 0; i < 4; ++i) {  // now 4 x 4 blocks of four lanes
    z[i] = _mm512_maskz_shuffle_f32x4(0xffff, y[i], y[i + 4], 0x88);
    z[i + 4] = _mm512_maskz_shuffle_f32x4(0xffff, y[i], y[i + 4], 0xdd);
    z[i + 8] = _mm512_maskz_shuffle_f32x4(0xffff, y[i + 8], y[i + 12], 0x88);
    z[i + 12] = _mm512_maskz_shuffle_f32x4(0xffff, y[i + 8], y[i + 12], 0xdd);
  }
  for (int32_t i = 0; i < 4; ++i) {
    x[i] = {_mm512_maskz_shuffle_f32x4(0xffff, z[i], z[i + 8], 0x88)};
    x[i + 8] = {_mm512_maskz_shuffle_f32x4(0xffff, z[i], z[i + 8], 0xdd)};
    x[i + 4] = {_mm512_maskz_shuffle_f32x4(0xffff, z[i + 4], z[i + 12], 0x88)};
    x[i + 12] = {_mm512_maskz_shuffle_f32x4(0xffff, z[i + 4], z[i + 12], 0xdd)};
  }
}

// x0 x1 x2 x3 … becomes x1 x0 x3 x2 …
inline F32 swap_pairs(F32 a) { return {_mm512_maskz_permute_ps(0xffff, a.v, 0xb1)}; }

// Bit i of the result: byte i is not zero. One call takes kBytes bytes.
inline constexpr int32_t kBytes = 64;
inline uint64_t nonzero_bits(const uint8_t* p) {
  const __m512i x = _mm512_loadu_si512(p);
  return _mm512_test_epi8_mask(x, x);
}

inline I32 load_ints(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
inline I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
inline I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
inline I32 operator&(I32 a, I32 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline I32 operator|(I32 a, I32 b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int kBits>
inline I32 shift_left(I32 a) {
  return {_mm512_maskz_slli_epi32(0xffff, a.v, kBits)};
}
template <int kBits>
inline I32 shift_right(I32 a) {
  return {_mm512_maskz_srli_epi32(0xffff, a.v, kBits)};
}
inline F32 to_float(I32 a) { return {_mm512_maskz_cvtepi32_ps(0xffff, a.v)}; }
inline F32 cast_to(F32, I32 a) { return to_float(a); }  // for variants
inline I32 to_int(F32 a) { return {_mm512_maskz_cvttps_epi32(0xffff, a.v)}; }
inline I32 bits_of(F32 a) { return {_mm512_castps_si512(a.v)}; }
inline F32 float_from_bits(I32 a) { return {_mm512_castsi512_ps(a.v)}; }

inline Mask operator<(F32 a, F32 b) { return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)}; }
inline Mask operator<(I32 a, I32 b) { return {_mm512_cmplt_epi32_mask(a.v, b.v)}; }
inline Mask operator==(I32 a, I32 b) { return {_mm512_cmpeq_epi32_mask(a.v, b.v)}; }
inline F32 select(Mask m, F32 a, F32 b) { return {_mm512_mask_mov_ps(b.v, m.v, a.v)}; }
inline Mask mask_from_bits(uint32_t bits) { return {__mmask16(bits)}; }
inline uint32_t bits_from_mask(Mask m) { return m.v; }
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline void prefetch_l2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

// Through a register: storing compressed lanes directly is microcode on Zen 4.
inline int32_t compress(float* p, F32 x, uint32_t bits) {
  _mm512_storeu_ps(p, _mm512_maskz_compress_ps(__mmask16(bits), x.v));
  return __builtin_popcount(bits);
}
inline int32_t compress(int32_t* p, I32 x, uint32_t bits) {
  _mm512_storeu_si512(p, _mm512_maskz_compress_epi32(__mmask16(bits), x.v));
  return __builtin_popcount(bits);
}

FULMEN_CPU_END
