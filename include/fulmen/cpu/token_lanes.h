// SPDX-License-Identifier: Apache-2.0
// Arithmetic that gives the same bits at every instruction set, so that the same seed draws the same token on any
// machine: sums run in sixteen fixed partial sums whatever the width of a register, and every product-and-sum rounds
// once. Used by the CPU kernels of sample, token_filter, softmax, top_k and chain_speculative_sampling.
#pragma once
#include <fulmen/cpu/simd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

FULMEN_CPU_BEGIN

inline constexpr int32_t kSumLanes = 16;
inline constexpr int32_t kRegisters = kSumLanes / kLanes;
inline constexpr int64_t kBlock = 1024;  // elements summed in f32; blocks are summed in double
inline constexpr float kInf = std::numeric_limits<float>::infinity();

inline uint32_t first_bits(int64_t n) { return n >= kLanes ? (1u << kLanes) - 1u : n <= 0 ? 0u : (1u << n) - 1u; }

// a * b + c rounded once. Level "scalar" has no instruction for it: the product is exact in double, and the sum's
// second rounding differs from a single one only where the first falls on a tie between floats (about once in 2^28).
inline F32 fused(F32 a, F32 b, F32 c) {
  if constexpr (kLanes > 4) return fma(a, b, c);
  float x[kLanes], y[kLanes], z[kLanes];
  store(x, a), store(y, b), store(z, c);
  for (int32_t i = 0; i < kLanes; ++i) z[i] = float(double(x[i]) * double(y[i]) + double(z[i]));
  return load(z);
}

// e^y for y <= 0; 0 for y < -87. Relative error <= 2 units: ln 2 leaves in two parts, then the Taylor series to r^7.
inline F32 exp_weight(F32 y) {
  const F32 kMagic = splat(0x1.8p23f);  // adding it rounds to a whole number
  const F32 clamped = max(y, splat(-87.f));
  const F32 n = fused(clamped, splat(1.44269504f), kMagic) - kMagic;
  const F32 r = fused(n, splat(2.12194440e-4f), fused(n, splat(-0.693359375f), clamped));
  F32 p = splat(1.98412698e-4f);
  p = fused(p, r, splat(1.38888889e-3f));
  p = fused(p, r, splat(8.33333333e-3f));
  p = fused(p, r, splat(4.16666667e-2f));
  p = fused(p, r, splat(1.66666667e-1f));
  p = fused(p, r, splat(0.5f));
  p = fused(p, r, splat(1.f));
  p = fused(p, r, splat(1.f));
  return select(y < splat(-87.f), zeros(), p * float_from_bits(shift_left<23>(to_int(n) + splat_i(127))));
}

// From a value to its weight. A probability's scale is a power of two, so scaling is exact; NaN passes through.
struct ProbWeight {
  F32 scale;
  F32 operator()(F32 x) const { return max(zeros(), x) * scale; }
};
struct LogitWeight {
  F32 top, inv_temperature;
  F32 operator()(F32 x) const { return exp_weight((x - top) * inv_temperature); }
};

// The sum of sixteen partial sums, lane i first with lane i + 8, then i + 4, i + 2, i + 1.
inline float reduce_sixteen(const F32 (&sum)[kRegisters]) {
  float v[kSumLanes];
  for (int32_t k = 0; k < kRegisters; ++k) store(v + k * kLanes, sum[k]);
  for (int32_t half = kSumLanes / 2; half > 0; half /= 2)
    for (int32_t i = 0; i < half; ++i) v[i] += v[i + half];
  return v[0];
}

// Σ weight(x[0..n)), n <= kBlock.
template <class W>
float block_sum(const float* x, int64_t n, const W& weight) {
  F32 sum[kRegisters];
  for (F32& s : sum) s = zeros();
  int64_t i = 0;
  for (; i + kSumLanes <= n; i += kSumLanes)
    for (int32_t k = 0; k < kRegisters; ++k) sum[k] = sum[k] + weight(load(x + i + k * kLanes));
  for (int32_t k = 0; i < n; i += kLanes, ++k) {
    const int32_t left = int32_t(std::min<int64_t>(kLanes, n - i));
    sum[k] = sum[k] + select(mask_from_bits(first_bits(left)), weight(load_n(x + i, left)), zeros());
  }
  return reduce_sixteen(sum);
}

// Σ weight(x[0..n)); the sums of the blocks go to sums[0..ceil(n / kBlock)).
template <class W>
double sum_blocks(const float* x, int64_t n, const W& weight, double* sums) {
  double total = 0;
  for (int64_t begin = 0; begin < n; begin += kBlock)
    total += sums[begin / kBlock] = double(block_sum(x + begin, std::min(kBlock, n - begin), weight));
  return total;
}

// The first i at which Σ_{j <= i} weight(x[j]) > u * total, total = Σ sums > 0. Never one of weight 0.
template <class W>
int64_t draw(const float* x, int64_t n, const W& weight, const double* sums, double total, double u) {
  const double target = u * total;
  const int64_t num_blocks = (n + kBlock - 1) / kBlock;
  int64_t block = 0;
  double before = 0, below = 0;
  for (int64_t b = 0; b < num_blocks; ++b) {
    if (!(sums[b] > 0)) continue;
    block = b, below = before;
    before += sums[b];
    if (before > target) break;
  }
  const float* p = x + block * kBlock;
  const int64_t len = std::min(kBlock, n - block * kBlock);
  int64_t last = 0;  // where rounding leaves the target beyond the block's own sum
  for (int64_t i = 0; i < len; i += kLanes) {
    float w[kLanes];
    const int32_t left = int32_t(std::min<int64_t>(kLanes, len - i));
    store(w, weight(load_n(p + i, left)));
    for (int32_t k = 0; k < left; ++k) {
      if (!(w[k] > 0)) continue;
      last = i + k;
      below += double(w[k]);
      if (below > target) return block * kBlock + last;
    }
  }
  return block * kBlock + last;
}

FULMEN_CPU_END
