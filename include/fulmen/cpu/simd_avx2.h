// SPDX-License-Identifier: Apache-2.0
// Level "avx2": eight lanes, FMA, F16C.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cpu/level.h>

#include <cstring>

FULMEN_CPU_BEGIN

inline constexpr int32_t kLanes = 8;
struct F32 {
  __m256 v;
  F32() = default;
  F32(__m256 x) : v(x) {}
  explicit F32(float x) : v(_mm256_set1_ps(x)) {}
};
struct I32 {
  __m256i v;
  I32() = default;
  I32(__m256i x) : v(x) {}
  explicit I32(int32_t x) : v(_mm256_set1_epi32(x)) {}
};
struct Mask {
  __m256i v;  // all ones or all zeros per lane
};

inline F32 splat(float x) { return {_mm256_set1_ps(x)}; }
inline F32 zeros() { return {_mm256_setzero_ps()}; }
inline I32 splat_i(int32_t x) { return {_mm256_set1_epi32(x)}; }
inline I32 iota(int32_t first) {
  return {_mm256_add_epi32(_mm256_set1_epi32(first), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))};
}
inline __m256i first_n(int32_t n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), iota(0).v); }

inline F32 widen(__m128i x, f16) { return {_mm256_cvtph_ps(x)}; }
inline F32 widen(__m128i x, bf16) { return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16))}; }
inline F32 widen(__m128i x, e5m2) {  // e5m2 is the upper byte of f16
  return {_mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(x), 8))};
}
inline F32 widen(__m128i x, e4m3) {
  const __m256i wide = _mm256_cvtepu8_epi32(x);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi32(0x7f));
  const __m256i sign = _mm256_slli_epi32(_mm256_and_si256(wide, _mm256_set1_epi32(0x80)), 24);
  const __m256 scaled =  // exponent bias 7 to 127; the multiplication normalises subnormals
      _mm256_mul_ps(_mm256_castsi256_ps(_mm256_slli_epi32(magnitude, 20)), _mm256_set1_ps(0x1p120f));
  const __m256i nan = _mm256_cmpeq_epi32(magnitude, _mm256_set1_epi32(0x7f));
  return {_mm256_or_ps(_mm256_or_ps(scaled, _mm256_castsi256_ps(sign)), _mm256_castsi256_ps(nan))};
}
inline F32 load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline F32 load(const f16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), f16{}); }
inline F32 load(const bf16* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)), bf16{}); }
inline F32 load(const e4m3* p) { return widen(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), e4m3{}); }
inline F32 load(const e5m2* p) { return widen(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), e5m2{}); }
inline F32 load_n(const float* p, int32_t n) { return {_mm256_maskload_ps(p, first_n(n))}; }
template <class T>
inline F32 load_n(const T* p, int32_t n) {
  T buffer[kLanes] = {};
  std::memcpy(buffer, p, size_t(n) * sizeof(T));
  return load(buffer);
}

inline void store(float* p, F32 x) { _mm256_storeu_ps(p, x.v); }
inline void store(f16* p, F32 x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store(bf16* p, F32 x) {
  const __m256i in = _mm256_castps_si256(x.v);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(in, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(_mm256_add_epi32(in, _mm256_set1_epi32(0x7fff)), odd), 16);
  const __m256i quiet = _mm256_or_si256(_mm256_srli_epi32(in, 16), _mm256_set1_epi32(0x40));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x.v, x.v, _CMP_UNORD_Q));
  const __m256i out = _mm256_blendv_epi8(rounded, quiet, nan);
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(out, out), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}
inline void store_n(float* p, F32 x, int32_t n) { _mm256_maskstore_ps(p, first_n(n), x.v); }
template <class T>
inline void store_n(T* p, F32 x, int32_t n) {
  T buffer[kLanes];
  store(buffer, x);
  std::memcpy(p, buffer, size_t(n) * sizeof(T));
}
// The 8-bit codes of x, one per 32-bit lane; the same steps as detail::round_fp8 of core/fp8.h.
template <int kMantissa, int kMinExponent, int kLargest, int kNaN>
inline __m256i fp8_codes(__m256 x) {
  constexpr int kDrop = 23 - kMantissa, kAnchor = (127 + kMinExponent + kDrop) << 23;
  const __m256i in = _mm256_castps_si256(x), magnitude = _mm256_and_si256(in, _mm256_set1_epi32(0x7fffffff));
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(magnitude, kDrop), _mm256_set1_epi32(1));
  const __m256i half = _mm256_add_epi32(odd, _mm256_set1_epi32((1 << (kDrop - 1)) - 1));
  const __m256i normal = _mm256_sub_epi32(_mm256_srli_epi32(_mm256_add_epi32(magnitude, half), kDrop),
                                          _mm256_set1_epi32((126 + kMinExponent) << kMantissa));
  const __m256i anchor = _mm256_set1_epi32(kAnchor);
  const __m256 shifted = _mm256_add_ps(_mm256_castsi256_ps(magnitude), _mm256_castsi256_ps(anchor));
  const __m256i subnormal = _mm256_sub_epi32(_mm256_castps_si256(shifted), anchor);
  const __m256i is_subnormal = _mm256_cmpgt_epi32(_mm256_set1_epi32((127 + kMinExponent) << 23), magnitude);
  const __m256i code =
      _mm256_min_epi32(_mm256_blendv_epi8(normal, subnormal, is_subnormal), _mm256_set1_epi32(kLargest));
  const __m256i is_nan = _mm256_cmpgt_epi32(magnitude, _mm256_set1_epi32(0x7f800000));
  const __m256i sign = _mm256_and_si256(_mm256_srli_epi32(in, 24), _mm256_set1_epi32(0x80));
  return _mm256_or_si256(_mm256_blendv_epi8(code, _mm256_set1_epi32(kNaN), is_nan), sign);
}
inline void store_codes(void* p, __m256i codes) {
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(codes, codes), 0xd8);
  const __m128i low = _mm256_castsi256_si128(words);
  _mm_storel_epi64(static_cast<__m128i*>(p), _mm_packus_epi16(low, low));
}
inline void store(e4m3* p, F32 x) { store_codes(p, fp8_codes<3, -6, 0x7e, 0x7f>(x.v)); }
inline void store(e5m2* p, F32 x) { store_codes(p, fp8_codes<2, -14, 0x7b, 0x7e>(x.v)); }

inline F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.v, b.v)}; }
inline F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.v, b.v)}; }
inline F32 fma(F32 a, F32 b, F32 c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
inline F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.v, b.v)}; }
inline F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.v, b.v)}; }
inline F32 sqrt(F32 a) { return {_mm256_sqrt_ps(a.v)}; }
inline F32 round(F32 a) { return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

// Lane i and lane i ^ kDistance change places; kDistance is a power of two.
template <int kDistance>
inline F32 swap_lanes(F32 a) {
  if constexpr (kDistance == 4) {
    return {_mm256_permute2f128_ps(a.v, a.v, 0x01)};
  } else {
    return {_mm256_permute_ps(a.v, kDistance == 2 ? 0x4e : 0xb1)};
  }
}
inline float reduce_add(F32 a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
inline float reduce_max(F32 a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a.v), _mm256_extractf128_ps(a.v, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_movehdup_ps(s)));
}

// Sums of 128-bit halves and of pairs of lanes: a's on the left, b's on the right.
inline __m256 add_halves(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}
inline __m256 add_pairs(__m256 a, __m256 b) {
  return _mm256_add_ps(_mm256_shuffle_ps(a, b, 0x44), _mm256_shuffle_ps(a, b, 0xee));
}
// Lane i of the result is the sum of x[i], in the order of a halving tree.
inline F32 reduce_add_each(const F32 (&x)[kLanes]) {
  const __m256 u = add_pairs(add_halves(x[0].v, x[4].v), add_halves(x[1].v, x[5].v));
  const __m256 w = add_pairs(add_halves(x[2].v, x[6].v), add_halves(x[3].v, x[7].v));
  return {_mm256_add_ps(_mm256_shuffle_ps(u, w, 0x88), _mm256_shuffle_ps(u, w, 0xdd))};
}
// x becomes its transpose: lane j of x[i] and lane i of x[j] change places. Bits are moved, never computed with.
inline void transpose(F32 (&x)[kLanes]) {
  __m256 y[8];
  for (int32_t i = 0; i < 8; i += 4) {
    const __m256 a = _mm256_shuffle_ps(x[i].v, x[i + 1].v, 0x44), b = _mm256_shuffle_ps(x[i].v, x[i + 1].v, 0xee);
    const __m256 c = _mm256_shuffle_ps(x[i + 2].v, x[i + 3].v, 0x44);
    const __m256 d = _mm256_shuffle_ps(x[i + 2].v, x[i + 3].v, 0xee);
    y[i] = _mm256_shuffle_ps(a, c, 0x88), y[i + 1] = _mm256_shuffle_ps(a, c, 0xdd);
    y[i + 2] = _mm256_shuffle_ps(b, d, 0x88), y[i + 3] = _mm256_shuffle_ps(b, d, 0xdd);
  }
  for (int32_t i = 0; i < 4; ++i) {
    x[i] = {_mm256_permute2f128_ps(y[i], y[i + 4], 0x20)};
    x[i + 4] = {_mm256_permute2f128_ps(y[i], y[i + 4], 0x31)};
  }
}

// x0 x1 x2 x3 … becomes x1 x0 x3 x2 …
inline F32 swap_pairs(F32 a) { return {_mm256_permute_ps(a.v, 0xb1)}; }

// Bit i of the result: byte i is not zero. One call takes kBytes bytes.
inline constexpr int32_t kBytes = 32;
inline uint64_t nonzero_bits(const uint8_t* p) {
  const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return ~uint32_t(_mm256_movemask_epi8(_mm256_cmpeq_epi8(x, _mm256_setzero_si256())));
}

inline I32 load_ints(const int32_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.v, b.v)}; }
inline I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.v, b.v)}; }
inline I32 operator&(I32 a, I32 b) { return {_mm256_and_si256(a.v, b.v)}; }
inline I32 operator|(I32 a, I32 b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int kBits>
inline I32 shift_left(I32 a) {
  return {_mm256_slli_epi32(a.v, kBits)};
}
template <int kBits>
inline I32 shift_right(I32 a) {
  return {_mm256_srli_epi32(a.v, kBits)};
}
inline F32 to_float(I32 a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline F32 cast_to(F32, I32 a) { return to_float(a); }  // for variants
inline I32 to_int(F32 a) { return {_mm256_cvttps_epi32(a.v)}; }
inline I32 bits_of(F32 a) { return {_mm256_castps_si256(a.v)}; }
inline F32 float_from_bits(I32 a) { return {_mm256_castsi256_ps(a.v)}; }

inline Mask operator<(F32 a, F32 b) { return {_mm256_castps_si256(_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ))}; }
inline Mask operator<(I32 a, I32 b) { return {_mm256_cmpgt_epi32(b.v, a.v)}; }
inline Mask operator==(I32 a, I32 b) { return {_mm256_cmpeq_epi32(a.v, b.v)}; }
inline F32 select(Mask m, F32 a, F32 b) { return {_mm256_blendv_ps(b.v, a.v, _mm256_castsi256_ps(m.v))}; }
inline Mask mask_from_bits(uint32_t bits) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return {_mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(int32_t(bits)), bit), bit)};
}
inline uint32_t bits_from_mask(Mask m) { return uint32_t(_mm256_movemask_ps(_mm256_castsi256_ps(m.v))); }
inline void prefetch(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T0); }
inline void prefetch_l2(const void* p) { _mm_prefetch(static_cast<const char*>(p), _MM_HINT_T1); }

// Lane numbers of the set bits, in order: each bit spreads over a byte, which picks its number out of 0..7.
inline __m256i lanes_of(uint32_t bits) {
  const uint64_t bytes = _pdep_u64(bits, 0x0101010101010101u) * 0xffu;
  return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(int64_t(_pext_u64(0x0706050403020100u, bytes))));
}
inline int32_t compress(float* p, F32 x, uint32_t bits) {
  _mm256_storeu_ps(p, _mm256_permutevar8x32_ps(x.v, lanes_of(bits)));
  return __builtin_popcount(bits);
}
inline int32_t compress(int32_t* p, I32 x, uint32_t bits) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_permutevar8x32_epi32(x.v, lanes_of(bits)));
  return __builtin_popcount(bits);
}

FULMEN_CPU_END
