// SPDX-License-Identifier: Apache-2.0
// CPU fused_add_rmsnorm. A work item is one row: a pass that sums the squares of input + residual without writing, a
// pass that adds again, writes the residual and scales. Adding twice keeps the unrounded f32 sum without scratch
// memory. Called by src/cpu/levels/fused_add_rmsnorm.cc.
#pragma once
#include <fulmen/cpu/rows.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/fused_add_rmsnorm.h>

#include <cmath>

FULMEN_CPU_BEGIN

template <class T>
float sum_of_squares_of_sum(const T* x, const T* y, int64_t n) {
  F32 sum[4] = {zeros(), zeros(), zeros(), zeros()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int32_t k = 0; k < 4; ++k) {
      const F32 v = load(x + i + k * kLanes) + load(y + i + k * kLanes);
      sum[k] = fma(v, v, sum[k]);
    }
  }
  for (; i < n; i += kLanes) {
    const int32_t left = int32_t(n - i < kLanes ? n - i : kLanes);
    const F32 v = load_n(x + i, left) + load_n(y + i, left);
    sum[0] = fma(v, v, sum[0]);
  }
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// residual = x + residual; out = (x + residual) * scale * (bias + weight); out may be x.
template <class T, class W, class O>
void add_and_scale_row(const T* x, T* residual, const W* weight, float scale, float bias, O* out, int64_t n) {
  const F32 s = splat(scale), b = splat(bias);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const F32 sum = load(x + i) + load(residual + i);
    store(residual + i, sum);
    store(out + i, sum * s * (b + load(weight + i)));
  }
  if (const int32_t left = int32_t(n - i); left > 0) {
    const F32 sum = load_n(x + i, left) + load_n(residual + i, left);
    store_n(residual + i, sum, left);
    store_n(out + i, sum * s * (b + load_n(weight + i, left)), left);
  }
}

template <class T, class W, class O>
void fused_add_rmsnorm_rows(const FusedAddRmsNormArgs& a, const FusedAddRmsNormDims& d, const Executor& executor) {
  const Rows<const T> in(a.input);
  const Rows<T> residual(a.residual);
  const Rows<O> out(a.out);
  const W* weight = a.weight.as<const W>();
  const float out_scale = inverse_scale("fused_add_rmsnorm", "out_scale", a.out_scale);
  const int64_t n = d.hidden_size;
  parallel_chunks(executor, d.num_tokens * d.num_heads, rows_per_chunk(n), [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t row = begin; row < end; ++row) {
      const float mean = sum_of_squares_of_sum<T>(in[row], residual[row], n) / float(n);
      const float scale = out_scale / std::sqrt(mean + a.eps);
      add_and_scale_row(in[row], residual[row], weight, scale, a.weight_bias, out[row], n);
    }
  });
}

inline void fused_add_rmsnorm(const FusedAddRmsNormArgs& a, const FusedAddRmsNormDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    for_out_dtype<T>(a.out.dtype, [&]<class O>(O) {
      if (a.weight.dtype == DType::kF32) return fused_add_rmsnorm_rows<T, float, O>(a, d, executor);
      fused_add_rmsnorm_rows<T, T, O>(a, d, executor);
    });
  });
}

FULMEN_CPU_END
