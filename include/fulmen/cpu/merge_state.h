// SPDX-License-Identifier: Apache-2.0
// CPU merge_state and merge_states. A work item is one (token, head): a scalar pass over the log-sum-exps, then one
// pass over the columns that adds all weighted states before it stores, so that out may be one of them. Called by
// src/cpu/levels/merge_state.cc.
#pragma once
#include <fulmen/core/math.h>
#include <fulmen/cpu/for_dtype.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/merge_state.h>

#include <cmath>

FULMEN_CPU_BEGIN

inline float larger_or_nan(float a, float b) { return a > b || a != a ? a : b; }

// num_states states, v_stride and s_stride elements apart; returns the merged lse.
template <class T, class Out>
float merge_row(const T* v, int64_t v_stride, const float* s, int64_t s_stride, int64_t num_states, int64_t head_dim,
                LogBase base, Out* out) {
  const float to_log2 = base == LogBase::k2 ? 1.f : math::kLog2e;
  float top = -__builtin_inff(), sum = 0;
  for (int64_t i = 0; i < num_states; ++i) top = larger_or_nan(top, s[i * s_stride]);
  const bool empty = top == -__builtin_inff();
  const auto weight = [&](int64_t i) { return empty ? 0.f : std::exp2((s[i * s_stride] - top) * to_log2); };
  for (int64_t i = 0; i < num_states; ++i) sum += weight(i);
  const float inverse = empty ? 0.f : 1 / sum;
  for (int64_t at = 0; at < head_dim; at += kLanes) {
    const int32_t n = head_dim - at < kLanes ? int32_t(head_dim - at) : kLanes;
    F32 total = zeros();
    for (int64_t i = 0; i < num_states; ++i) {
      const float w = weight(i);
      if (w != 0) total = fma(splat(w), load_n(v + i * v_stride + at, n), total);
    }
    store_n(out + at, total * splat(inverse), n);
  }
  return empty ? top : top + std::log2(sum) / to_log2;
}

// The same for two states that lie anywhere; weights are computed once.
template <class T, class Out>
float merge_two(const T* a, float s_a, const T* b, float s_b, int64_t head_dim, LogBase base, Out* out) {
  const float to_log2 = base == LogBase::k2 ? 1.f : math::kLog2e;
  const float top = larger_or_nan(s_a, s_b);
  const bool empty = top == -__builtin_inff();
  const float w_a = empty ? 0.f : std::exp2((s_a - top) * to_log2),
              w_b = empty ? 0.f : std::exp2((s_b - top) * to_log2);
  const float inverse = empty ? 0.f : 1 / (w_a + w_b);
  const F32 scale_a = splat(w_a * inverse), scale_b = splat(w_b * inverse);
  for (int64_t at = 0; at < head_dim; at += kLanes) {
    const int32_t n = head_dim - at < kLanes ? int32_t(head_dim - at) : kLanes;
    F32 total = w_a != 0 ? load_n(a + at, n) * scale_a : zeros();
    if (w_b != 0) total = fma(load_n(b + at, n), scale_b, total);
    store_n(out + at, total, n);
  }
  return empty ? top : top + std::log2(w_a + w_b) / to_log2;
}

// body(token, head) for all, in chunks.
template <class F>
void for_rows(const MergeDims& d, const Executor& executor, F&& body) {
  parallel_chunks(executor, d.num_tokens * d.num_heads, 1 + 4096 / (1 + d.head_dim * d.num_states),
                  [&](int64_t begin, int64_t end, int32_t) {
                    for (int64_t i = begin; i < end; ++i) body(i / d.num_heads, i % d.num_heads);
                  });
}

inline void merge_state(const MergeStateArgs& a, const MergeDims& d, const Executor& executor) {
  const auto offset = [](const TensorView& t, int64_t token, int64_t head) {
    return token * t.strides[0] + head * t.strides[1];
  };
  for_dtype<float, f16, bf16>(a.v_a.dtype, [&]<class T>(T) {
    for_dtype<float, f16, bf16>(a.out.dtype, [&]<class Out>(Out) {
      for_rows(d, executor, [&](int64_t token, int64_t head) {
        if (a.mask.defined() && a.mask.as<const uint8_t>()[token * a.mask.strides[0]] == 0) return;
        a.lse.as<float>()[offset(a.lse, token, head)] = merge_two(
            a.v_a.as<const T>() + offset(a.v_a, token, head), a.s_a.as<const float>()[offset(a.s_a, token, head)],
            a.v_b.as<const T>() + offset(a.v_b, token, head), a.s_b.as<const float>()[offset(a.s_b, token, head)],
            d.head_dim, a.lse_base, a.out.as<Out>() + offset(a.out, token, head));
      });
    });
  });
}

inline void merge_states(const MergeStatesArgs& a, const MergeDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.v.dtype, [&]<class T>(T) {
    for_dtype<float, f16, bf16>(a.out.dtype, [&]<class Out>(Out) {
      for_rows(d, executor, [&](int64_t token, int64_t head) {
        if (a.mask.defined() && a.mask.as<const uint8_t>()[token * a.mask.strides[0]] == 0) return;
        const T* v = a.v.as<const T>() + token * a.v.strides[0] + head * a.v.strides[2];
        const float* s = a.s.as<const float>() + token * a.s.strides[0] + head * a.s.strides[2];
        a.lse.as<float>()[token * a.lse.strides[0] + head * a.lse.strides[1]] =
            merge_row(v, a.v.strides[1], s, a.s.strides[1], d.num_states, d.head_dim, a.lse_base,
                      a.out.as<Out>() + token * a.out.strides[0] + head * a.out.strides[1]);
      });
    });
  });
}

FULMEN_CPU_END
