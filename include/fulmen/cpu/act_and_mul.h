// SPDX-License-Identifier: Apache-2.0
// CPU act_and_mul. A work item is a block of one row, so that one long row still fills the threads. The activations
// keep relative accuracy down to the underflow: no 1 − x of nearly equal numbers. Called by
// src/cpu/levels/act_and_mul.cc.
#pragma once
#include <fulmen/cpu/rows.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/act_and_mul.h>

FULMEN_CPU_BEGIN

// x / (1 + e^-x). Relative error <= 8 units; below -88 the result's magnitude is at most 1e-36.
inline F32 silu(F32 x) { return x / (splat(1.f) + exp(min(zeros() - x, splat(88.f)))); }

// x (1 + tanh u) / 2 = x / (1 + e^-2u),   2u = √(8/π) (x + 0.044715 x³)
inline F32 gelu_tanh(F32 x) {
  const F32 two_u = x * fma(x * x, splat(0.0713548163f), splat(1.59576912f));
  return x / (splat(1.f) + exp(min(zeros() - two_u, splat(88.f))));
}

// e^(high + low) for high + low <= 0: low joins the reduced argument, where its bits still count. 0 below -87.
inline F32 exp_of_sum(F32 high, F32 low) {
  const F32 sum = max(high + low, splat(-87.f));
  const F32 n = round(sum * splat(1.44269504f));
  const F32 r = fma(n, splat(2.12194440e-4f), fma(n, splat(-0.693359375f), high)) + low;
  return select(high + low < splat(-87.f), zeros(), exp2_parts(n, r * splat(1.44269504f)));
}

// Φ(-a) = erfc(a / √2) / 2 for a >= 0, the upper tail of the normal distribution: e^(-a²/2) / (1 + a) times a
// polynomial in (a - 3.5) / (a + 3.5), whose bounded range lets one polynomial serve every a (the substitution of
// Shepherd and Laframboise 1981; minimax fit of our own, 0.3 units). a² is carried in two parts. Relative error <= 12
// units; 0 beyond a = 13.2.
inline F32 normal_tail(F32 a) {
  const F32 near = a + splat(1.f), far = a + splat(3.5f);
  const F32 inverse = splat(1.f) / (near * far);
  const F32 q = (a - splat(3.5f)) * (near * inverse);
  F32 p = splat(0.000144244041f);
  p = fma(p, q, splat(8.81342348e-05f));
  p = fma(p, q, splat(-0.00139082293f));
  p = fma(p, q, splat(0.000297734019f));
  p = fma(p, q, splat(0.0103739602f));
  p = fma(p, q, splat(-0.0302635562f));
  p = fma(p, q, splat(0.0380480886f));
  p = fma(p, q, splat(0.000787381723f));
  p = fma(p, q, splat(-0.0977125838f));
  p = fma(p, q, splat(0.478553176f));
  // a's upper 12 bits have an exact square, so the exponent loses nothing
  const F32 high = float_from_bits(bits_of(a) & splat_i(int32_t(0xfffff000u)));
  const F32 e = exp_of_sum(high * high * splat(-0.5f), (a - high) * (a + high) * splat(-0.5f));
  return p * (far * inverse) * e;
}

// x Φ(x)
inline F32 gelu(F32 x) {
  const F32 magnitude = float_from_bits(bits_of(x) & splat_i(0x7fffffff));
  const F32 tail = normal_tail(min(magnitude, splat(16.f)));
  return x * select(x < zeros(), tail, splat(1.f) - tail);
}

template <Activation kActivation>
inline F32 activate(F32 x) {
  if constexpr (kActivation == Activation::kSilu)
    return silu(x);
  else if constexpr (kActivation == Activation::kGelu)
    return gelu(x);
  else
    return gelu_tanh(x);
}

// out = act(gate) * up; out may be gate.
template <Activation kActivation, class T>
void act_and_mul_row(const T* gate, const T* up, T* out, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(out + i, activate<kActivation>(load(gate + i)) * load(up + i));
  if (const int32_t left = int32_t(n - i); left > 0)
    store_n(out + i, activate<kActivation>(load_n(gate + i, left)) * load_n(up + i, left), left);
}

template <Activation kActivation, class T>
void act_and_mul_rows(const ActAndMulArgs& a, const ActAndMulDims& d, const Executor& executor) {
  constexpr int64_t kBlock = 2048;
  const Rows<const T> in(a.input);
  const Rows<T> out(a.out);
  const int64_t n = d.hidden_size, num_blocks = (n + kBlock - 1) / kBlock;
  const int64_t num_items = d.num_tokens * d.num_heads * num_blocks;
  parallel_chunks(executor, num_items, 1 + kBlock / n, [&](int64_t begin, int64_t end, int32_t) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t row = item / num_blocks, first = item % num_blocks * kBlock;
      const T* gate = in[row] + first;
      act_and_mul_row<kActivation>(gate, gate + n, out[row] + first, n - first < kBlock ? n - first : kBlock);
    }
  });
}

inline void act_and_mul(const ActAndMulArgs& a, const ActAndMulDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    switch (a.activation) {
      case Activation::kSilu: return act_and_mul_rows<Activation::kSilu, T>(a, d, executor);
      case Activation::kGelu: return act_and_mul_rows<Activation::kGelu, T>(a, d, executor);
      case Activation::kGeluTanh: return act_and_mul_rows<Activation::kGeluTanh, T>(a, d, executor);
    }
  });
}

FULMEN_CPU_END
