// SPDX-License-Identifier: Apache-2.0
// Packing of a block of K and V rows for gemm_tile.h. Rows past the last token must be given as rows of zeros.
//   keys:    panel p = keys p * kPanel ..:     out[p][i][kPanel],  i < head_dim    (kDot: bf16 pairs, i < head_dim / 2)
//   values:  panel p = columns p * kPanel ..:  out[p][t][kPanel],  t < kKeyBlock   (kDot: token pairs, half as many)
#pragma once
#include <fulmen/cpu/attention/gemm_tile.h>
#include <fulmen/cpu/attention/query_block.h>
#include <fulmen/cpu/attention/row_load.h>

FULMEN_CPU_BEGIN

inline constexpr int32_t kKeyBlock = 128;  // keys that are packed together; a multiple of kPanel

// rows[kKeyBlock]; the panels of the first n are written. Panels lie padded_head_dim() rows apart.
template <bool kDot, class T>
inline void pack_keys(const T* const* rows, int32_t n, int32_t head_dim, float* out) {
  constexpr int32_t kUnit = kDot ? 2 : 1, kStep = kLanes * kUnit;
  for (int32_t j = 0; j < n; j += kLanes) {
    float* const half = out + int64_t(j / kPanel * kPanel) * (padded_head_dim(head_dim) / kUnit) + j % kPanel;
    for (int32_t at = 0; at < head_dim; at += kStep) {
      const int32_t left = head_dim - at;
      F32 x[kLanes];
      for (int32_t i = 0; i < kLanes; ++i) {
        x[i] = left >= kStep ? load_row<kDot>(rows[j + i] + at) : load_row_part<kDot>(rows[j + i] + at, left);
      }
      transpose(x);
      for (int32_t i = 0; i < kLanes; ++i) store(half + (at / kUnit + i) * kPanel, x[i]);
    }
  }
  if (n % kPanel != 0 && n % kPanel <= kLanes) {  // the second half of the last panel: no keys
    float* const half = out + int64_t(n / kPanel * kPanel) * (padded_head_dim(head_dim) / kUnit) + kLanes;
    for (int32_t i = 0; i < head_dim / kUnit; ++i) store(half + i * kPanel, zeros());
  }
}

template <bool kDot, class T>
inline void pack_values(const T* const* rows, int32_t n, int32_t head_dim, float* out) {
  constexpr int32_t kUnit = kDot ? 2 : 1;
  for (int32_t t = 0; t < n; t += kUnit) {
    for (int32_t column = 0; column < head_dim; column += kPanel) {
      float* const to = out + int64_t(column) * (kKeyBlock / kUnit) + t / kUnit * kPanel;
      const int32_t left = head_dim - column;
      if constexpr (kDot) {
        const T *a = rows[t] + column, *b = rows[t + 1] + column;
        const PairedRows pair = left >= kPanel ? pair_rows(load_row<true>(a), load_row<true>(b))
                                               : pair_rows(load_row_part<true>(a, left), load_row_part<true>(b, left));
        store(to, pair.low);
        store(to + kLanes, pair.high);
      } else {
        for (int32_t i = 0; i < kPanel; i += kLanes) {
          const T* const a = rows[t] + column + i;
          store(to + i, left - i >= kLanes ? load_row<false>(a)
                        : left > i         ? load_row_part<false>(a, left - i)
                                           : zeros());
        }
      }
    }
  }
}

FULMEN_CPU_END
