// SPDX-License-Identifier: Apache-2.0
// CPU layernorm. A work item is one row: a pass for the mean, one for the variance of the centred values, one that
// writes. Two passes for the statistics, because E[x²] − E[x]² cancels where the mean is large. The row stays in L1 or
// L2. Called by src/cpu/levels/layernorm.cc.
#pragma once
#include <fulmen/cpu/rows.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/layernorm.h>

#include <cmath>

FULMEN_CPU_BEGIN

// Σ f(x_i) in four independent sums; f sees only elements that exist.
template <class T, class F>
float sum_over_row(const T* x, int64_t n, F f) {
  F32 sum[4] = {zeros(), zeros(), zeros(), zeros()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes)
    for (int32_t k = 0; k < 4; ++k) sum[k] = sum[k] + f(load(x + i + k * kLanes));
  for (; i + kLanes <= n; i += kLanes) sum[0] = sum[0] + f(load(x + i));
  if (const int32_t left = int32_t(n - i); left > 0)
    sum[1] = sum[1] + select(iota(0) < splat_i(left), f(load_n(x + i, left)), zeros());
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

template <class T, class W, class O>
void layernorm_row(const T* x, const W* gamma, const W* beta, float mean, float scale, float out_scale, O* out,
                   int64_t n) {
  const F32 m = splat(mean), s = splat(scale), o = splat(out_scale);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, fma((load(x + i) - m) * s, load(gamma + i), load(beta + i)) * o);
  if (const int32_t left = int32_t(n - i); left > 0)
    store_n(out + i, fma((load_n(x + i, left) - m) * s, load_n(gamma + i, left), load_n(beta + i, left)) * o, left);
}

template <class T, class W, class O>
void layernorm_rows(const LayerNormArgs& a, const LayerNormDims& d, const Executor& executor) {
  const Rows<const T> in(a.input);
  const Rows<O> out(a.out);
  const W *gamma = a.gamma.as<const W>(), *beta = a.beta.as<const W>();
  const float out_scale = inverse_scale("layernorm", "out_scale", a.out_scale);
  const int64_t n = d.hidden_size;
  parallel_chunks(executor, d.num_tokens * d.num_heads, rows_per_chunk(n), [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t row = begin; row < end; ++row) {
      const float mean = sum_over_row(in[row], n, [](F32 x) { return x; }) / float(n);
      const F32 m = splat(mean);
      const float variance = sum_over_row(in[row], n, [m](F32 x) { return (x - m) * (x - m); }) / float(n);
      layernorm_row(in[row], gamma, beta, mean, 1 / std::sqrt(variance + a.eps), out_scale, out[row], n);
    }
  });
}

inline void layernorm(const LayerNormArgs& a, const LayerNormDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    for_out_dtype<T>(a.out.dtype, [&]<class O>(O) {
      if (a.gamma.dtype == DType::kF32) return layernorm_rows<T, float, O>(a, d, executor);
      layernorm_rows<T, T, O>(a, d, executor);
    });
  });
}

FULMEN_CPU_END
