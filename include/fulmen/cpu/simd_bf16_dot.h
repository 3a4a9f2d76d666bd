// SPDX-License-Identifier: Apache-2.0
// Products of bf16 pairs, for kernels that hold two bf16 in every 32-bit lane of an F32:
//   dot_pairs(a, b, c)  lane i: c_i + a_i.low * b_i.low + a_i.high * b_i.high     (f32, subnormals count as 0)
//   pair_rows(a, b)     32 bf16 a_j and 32 bf16 b_j to the pairs (a_j, b_j), j = 0..15 and 16..31
//   pair_up(lo, hi)     32 floats, rounded to nearest even, as 16 pairs in memory order
// Only level avx512_bf16 has the instruction; elsewhere kHasBf16Dot is false and nothing here may be called.
#pragma once
#include <fulmen/cpu/simd.h>

FULMEN_CPU_BEGIN

struct PairedRows {
  F32 low, high;
};

#if FULMEN_CPU_LEVEL_ID == 3
inline constexpr bool kHasBf16Dot = true;
inline bool is_amd() { return __builtin_cpu_is("amd"); }
inline F32 dot_pairs(F32 a, F32 b, F32 c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)_mm512_castps_si512(a.v), (__m512bh)_mm512_castps_si512(b.v))};
}
inline PairedRows pair_rows(F32 a, F32 b) {
  const __m512i x = _mm512_castps_si512(a.v), y = _mm512_castps_si512(b.v);
  const __m512i low = _mm512_setr_epi32(  // words j and 32 + j, j = 0..15
      0x200000, 0x210001, 0x220002, 0x230003, 0x240004, 0x250005, 0x260006, 0x270007, 0x280008, 0x290009, 0x2a000a,
      0x2b000b, 0x2c000c, 0x2d000d, 0x2e000e, 0x2f000f);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
  return {{_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, low, y))},
          {_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, high, y))}};
}
inline F32 pair_up(F32 lo, F32 hi) { return {_mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(hi.v, lo.v))}; }
#else
inline constexpr bool kHasBf16Dot = false;
inline bool is_amd() { return false; }
inline F32 dot_pairs(F32, F32, F32 c) { return c; }
inline PairedRows pair_rows(F32 a, F32 b) { return {a, b}; }
inline F32 pair_up(F32 lo, F32) { return lo; }
#endif

FULMEN_CPU_END
