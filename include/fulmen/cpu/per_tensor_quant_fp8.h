// SPDX-License-Identifier: Apache-2.0
// CPU per_tensor_quant_fp8. A work item is one row; with a dynamic scale a first region finds the largest magnitude.
// Called by src/cpu/levels/per_tensor_quant_fp8.cc.
#pragma once
#include <fulmen/cpu/quant_fp8.h>
#include <fulmen/cpu/rows.h>
#include <fulmen/ops/per_tensor_quant_fp8.h>

#include <algorithm>
#include <atomic>

FULMEN_CPU_BEGIN

template <class T, class O>
float dynamic_scale(const Rows<const T>& in, int64_t num_rows, int64_t n, const Executor& executor) {
  std::atomic<float> largest{0};
  parallel_chunks(executor, num_rows, rows_per_chunk(n), [&](int64_t begin, int64_t end, int32_t) {
    float top = 0;
    for (int64_t row = begin; row < end; ++row) top = std::max(top, largest_magnitude(in[row], n));
    float seen = largest.load(std::memory_order_relaxed);
    while (seen < top && !largest.compare_exchange_weak(seen, top, std::memory_order_relaxed)) {}
  });
  return std::max(largest.load(std::memory_order_relaxed) / kLargestFp8<O>, 0x1p-96f);
}

template <class T, class O>
void per_tensor_quant_fp8_rows(const PerTensorQuantFp8Args& a, const PerTensorQuantFp8Dims& d,
                               const Executor& executor) {
  const Rows<const T> in(a.input);
  const Rows<O> out(a.out);
  const int64_t num_rows = d.num_tokens * d.num_heads, n = d.hidden_size;
  if (a.dynamic) *a.scale.as<float>() = n == 0 ? 0x1p-96f : dynamic_scale<T, O>(in, num_rows, n, executor);
  if (num_rows * n == 0) return;
  const float factor = inverse_scale("per_tensor_quant_fp8", "scale", a.scale);
  parallel_chunks(executor, num_rows, rows_per_chunk(n), [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t row = begin; row < end; ++row) scale_and_store(in[row], factor, out[row], n);
  });
}

inline void per_tensor_quant_fp8(const PerTensorQuantFp8Args& a, const PerTensorQuantFp8Dims& d,
                                 const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    for_dtype<e4m3, e5m2>(a.out.dtype, [&]<class O>(O) { per_tensor_quant_fp8_rows<T, O>(a, d, executor); });
  });
}

FULMEN_CPU_END
