// SPDX-License-Identifier: Apache-2.0
// How both attention kernels read K and V rows and write weights, with (kDot) and without products of bf16 pairs.
#pragma once
#include <fulmen/cpu/simd.h>
#include <fulmen/cpu/simd_bf16_dot.h>

FULMEN_CPU_BEGIN

// One register of a K or V row: kLanes widened elements, or with kDot 2 * kLanes bf16 as they are. load_row_part: only
// the first n elements; the others count as 0 and are not touched.
template <bool kDot, class T>
inline F32 load_row(const T* p) {
  if constexpr (kDot) {
    return load(reinterpret_cast<const float*>(p));
  } else {
    return load(p);
  }
}
template <bool kDot, class T>
inline F32 load_row_part(const T* p, int32_t n) {
  if constexpr (kDot) {
    const int32_t pairs = n / 2;
    return load_n(reinterpret_cast<const float*>(p), pairs < kLanes ? pairs : kLanes);
  } else {
    return load_n(p, n < kLanes ? n : kLanes);
  }
}

// p[0..n) = s[0..n) as bf16 (subnormals become 0), n a multiple of kLanes; where it is an odd multiple, kLanes zeros
// follow.
inline void narrow_pairs(const float* s, int32_t n, bf16* p) {
  for (int32_t j = 0; j < n; j += 2 * kLanes) {
    const F32 high = j + kLanes < n ? load(s + j + kLanes) : zeros();
    store(reinterpret_cast<float*>(p + j), pair_up(load(s + j), high));
  }
}

FULMEN_CPU_END
