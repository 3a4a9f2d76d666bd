// SPDX-License-Identifier: Apache-2.0
// CPU rmsnorm. A work item is one row: a pass for the sum of squares (four independent sums), a pass that scales.
// The row stays in L1 between the passes. Called by src/cpu/levels/rmsnorm.cc.
#pragma once
#include <fulmen/cpu/for_dtype.h>
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
template <class T, class W>
void scale_row(const T* x, const W* weight, float scale, float bias, T* out, int64_t n) {
  const F32 s = splat(scale), b = splat(bias);
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, load(x + i) * s * (b + load(weight + i)));
  if (const int32_t left = int32_t(n - i); left > 0)
    store_n(out + i, load_n(x + i, left) * s * (b + load_n(weight + i, left)), left);
}

template <class T, class W>
void rmsnorm_rows(const RmsNormArgs& a, const RmsNormDims& d, const Executor& executor) {
  const TensorView in = a.input.rank == 2 ? insert_axis(a.input, 1) : a.input;
  const TensorView out = a.out.rank == 2 ? insert_axis(a.out, 1) : a.out;
  parallel_chunks(executor, d.num_tokens * d.num_heads, 1 + 4096 / d.hidden_size,
                  [&](int64_t begin, int64_t end, int32_t) {
                    for (int64_t row = begin; row < end; ++row) {
                      const int64_t token = row / d.num_heads, head = row % d.num_heads;
                      const T* x = in.as<T>() + token * in.strides[0] + head * in.strides[1];
                      const float mean = sum_of_squares(x, d.hidden_size) / float(d.hidden_size);
                      scale_row(x, a.weight.as<W>(), 1 / std::sqrt(mean + a.eps), a.weight_bias,
                                out.as<T>() + token * out.strides[0] + head * out.strides[1], d.hidden_size);
                    }
                  });
}

inline void rmsnorm(const RmsNormArgs& a, const RmsNormDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    if (a.weight.dtype == DType::kF32) return rmsnorm_rows<T, float>(a, d, executor);
    rmsnorm_rows<T, T>(a, d, executor);
  });
}

FULMEN_CPU_END
