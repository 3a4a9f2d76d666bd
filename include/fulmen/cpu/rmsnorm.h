// SPDX-License-Identifier: Apache-2.0
// CPU rmsnorm. A work item is one row: a pass for the sum of squares (four independent sums), a pass that scales.
// The row stays in L1 between the passes. Called by src/cpu/levels/rmsnorm.cc.
#pragma once
#include <fulmen/cpu/for_dtype.h>
#include <fulmen/cpu/rows.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/rmsnorm.h>

#include <cmath>

FULMEN_CPU_BEGIN

template <class T>
float sum_of_squares(const T* x, int64_t n) {
  F32 sum[4] = {zeros(), zeros(), zeros(), zeros()};
  int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int32_t k = 0; k < 4; ++k) {
      const F32 v = load(x + i + k * kLanes);
      sum[k] = fma(v, v, sum[k]);
    }
  }
  for (; i < n; i += kLanes) {
    const F32 v = n - i >= kLanes ? load(x + i) : load_n(x + i, int32_t(n - i));
    sum[0] = fma(v, v, sum[0]);
  }
  return reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
}

// out = x * scale * (bias + weight); out may be x.
template <class T, class W, class O>
void scale_row(const T* x, const W* weight, float scale, float bias, O* out, int64_t n) {
  const F32 s = splat(scale), b = splat(bias);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i) * s * (b + load(weight + i)));
  if (const int32_t left = int32_t(n - i); left > 0)
    store_n(out + i, load_n(x + i, left) * s * (b + load_n(weight + i, left)), left);
}

template <class T, class W, class O>
void rmsnorm_rows(const RmsNormArgs& a, const RmsNormDims& d, const Executor& executor) {
  const Rows<const T> in(a.input);
  const Rows<O> out(a.out);
  const W* weight = a.weight.as<const W>();
  const float out_scale = inverse_scale("rmsnorm", "out_scale", a.out_scale);
  const int64_t n = d.hidden_size;
  parallel_chunks(executor, d.num_tokens * d.num_heads, rows_per_chunk(n), [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t row = begin; row < end; ++row) {
      const float mean = sum_of_squares(in[row], n) / float(n);
      scale_row(in[row], weight, out_scale / std::sqrt(mean + a.eps), a.weight_bias, out[row], n);
    }
  });
}

inline void rmsnorm(const RmsNormArgs& a, const RmsNormDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    for_out_dtype<T>(a.out.dtype, [&]<class O>(O) {
      if (a.weight.dtype == DType::kF32) return rmsnorm_rows<T, float, O>(a, d, executor);
      rmsnorm_rows<T, T, O>(a, d, executor);
    });
  });
}

FULMEN_CPU_END
