// SPDX-License-Identifier: Apache-2.0
// act_and_mul: one vector of gates and one of ups per thread; the SM's many warps hide memory and expf. Launched by
// src/cuda/activation.cc.
#pragma once
#include <fulmen/cuda/act_and_mul.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/flat_block.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::act_and_mul {

// x Φ(x) = x erfc(-x / √2) / 2: erfc cancels nothing for x < 0, but there its relative error is 2 z² times that of its
// argument z. kExact makes up for the argument's rounding, which only an f32 output can show.
template <bool kExact>
__device__ __forceinline__ float gelu(float x) {
  const float z = -0.707106769f * x;
  float tail = erfcf(z);
  if constexpr (kExact) {
    const float rest = fmaf(-0.707106769f, x, -z) - 1.21016175e-8f * x;  // 1/√2 as two floats
    tail = fmaf(-1.12837917f * rest, expf(-z * z), tail);
  }
  return 0.5f * x * tail;
}

// Within 8 units for silu, 14 for gelu, as include/fulmen/reference/act_and_mul.h expects.
template <Gate G, bool kExact>
__device__ __forceinline__ float activate(float x) {
  if constexpr (G == Gate::kGelu) return gelu<kExact>(x);
  // gelu_tanh(x) = x * sigmoid(2 √(2/π) (x + 0.044715 x³))
  const float t = G == Gate::kSilu ? x : x * fmaf(0.0713548163f * x, x, 1.59576912f);
  return x / (1.0f + expf(-t));
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  constexpr int32_t kBytes = K.vec * int32_t(sizeof(X));
  const FlatBlock<K.vec, kVecsPerThread, kThreads> mine(p.rows, p.num_vecs, blockIdx.x);
  Bits<kBytes> gate[kVecsPerThread], up[kVecsPerThread];

  wait_for_predecessor();
#pragma unroll
  for (int32_t i = 0; i < kVecsPerThread; ++i) {
    gate[i] = up[i] = Bits<kBytes>{};
    if (!mine.inside[i]) continue;
    const X* x = p.rows.row_of<const X>(p.x, mine.row[i]) + mine.column[i];
    gate[i] = load_stream<kBytes>(x);
    up[i] = load_stream<kBytes>(x + p.rows.n);
  }
  allow_successor();
#pragma unroll
  for (int32_t i = 0; i < kVecsPerThread; ++i) {
    if (!mine.inside[i]) continue;
    float g[K.vec], u[K.vec];
    unpack<X, K.vec>(gate[i], g);
    unpack<X, K.vec>(up[i], u);
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j) g[j] = activate<K.gate, sizeof(X) == 4>(g[j]) * u[j];
    store_stream<kBytes>(p.rows.row_of<X>(p.out, mine.row[i]) + mine.column[i], pack<X, K.vec>(g));
  }
}

}  // namespace fulmen::cuda::act_and_mul
