// SPDX-License-Identifier: Apache-2.0
// The multiplication inside attention over many rows: C (rows x kPanel) (+)= A (rows x depth) B (depth x kPanel), where
// B is a packed panel [depth][kPanel] and C, A are row-major. One A element is 32 bits: a float, or with kDot a bf16
// pair that meets the pairs of B in dot_pairs (then depth counts pairs). A tile of C lives in registers for the whole
// depth.
#pragma once
#include <fulmen/cpu/simd.h>
#include <fulmen/cpu/simd_bf16_dot.h>
#include <fulmen/cpu/unroll.h>

FULMEN_CPU_BEGIN

inline constexpr int32_t kPanel = 2 * kLanes;                                  // columns of a packed panel
inline constexpr int32_t kTileRows = kLanes == 16 ? 12 : kLanes == 8 ? 6 : 4;  // rows of a register tile

template <bool kDot, int kRows>
inline void gemm_tile(const float* a, int64_t lda, const float* b, int32_t depth, float* c, int64_t ldc,
                      bool accumulate) {
  F32 acc[kRows][2];
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    acc[r][0] = accumulate ? load(c + r * ldc) : zeros();
    acc[r][1] = accumulate ? load(c + r * ldc + kLanes) : zeros();
  });
  for (int32_t i = 0; i < depth; ++i, b += kPanel) {
    const F32 b0 = load(b), b1 = load(b + kLanes);
    unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      const F32 x = splat(a[r * lda + i]);
      acc[r][0] = kDot ? dot_pairs(x, b0, acc[r][0]) : fma(x, b0, acc[r][0]);
      acc[r][1] = kDot ? dot_pairs(x, b1, acc[r][1]) : fma(x, b1, acc[r][1]);
    });
  }
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    store(c + r * ldc, acc[r][0]);
    store(c + r * ldc + kLanes, acc[r][1]);
  });
}

// rows <= kTileRows. The result of a row does not depend on how rows are grouped.
template <bool kDot>
inline void gemm_rows(int32_t rows, const float* a, int64_t lda, const float* b, int32_t depth, float* c, int64_t ldc,
                      bool accumulate) {
  if (rows == kTileRows) return gemm_tile<kDot, kTileRows>(a, lda, b, depth, c, ldc, accumulate);
  const auto step = [&](auto count) {
    while (rows >= count) {
      gemm_tile<kDot, count>(a, lda, b, depth, c, ldc, accumulate);
      a += count * lda, c += count * ldc, rows -= count;
    }
  };
  if constexpr (kTileRows > 8) step(std::integral_constant<int, 8>{});
  step(std::integral_constant<int, 4>{});
  step(std::integral_constant<int, 1>{});
}

FULMEN_CPU_END
