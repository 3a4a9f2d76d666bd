// SPDX-License-Identifier: Apache-2.0
// act_and_mul: the rows' vectors are numbered through and dealt to CTAs in blocks, so that any hidden_size fills them.
// Launched by src/cuda/activation.cc.
#pragma once
#include <fulmen/cuda/act_and_mul.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::act_and_mul {

// Within 8 units for silu, 14 for gelu, as include/fulmen/reference/act_and_mul.h expects.
template <Gate G>
FULMEN_DEVICE float activate(float x) {
  if constexpr (G == Gate::kGelu) return x * (0.5f * erfcf(-0.707106781f * x));  // erfc: no cancellation for x < 0
  // gelu_tanh(x) = x * sigmoid(2 √(2/π) (x + 0.044715 x³))
  const float t = G == Gate::kSilu ? x : x * fmaf(0.0713548163f * x, x, 1.59576912f);
  return x / (1.0f + expf(-t));
}

template <Key K>
FULMEN_DEVICE void run(const Params& p) {
  using X = type_of<K.x>;
  constexpr int32_t kBytes = K.vec * int32_t(sizeof(X));
  const uint32_t vecs_per_row = uint32_t(p.rows.n / K.vec);
  const int64_t first = int64_t(blockIdx.x) * vecs_per_cta();
  const int64_t first_row = first / vecs_per_row;  // 64-bit once; from there 32 bits suffice
  const uint32_t start = uint32_t(first - first_row * vecs_per_row);
  int64_t row[kVecsPerThread];
  int32_t column[kVecsPerThread];
  Bits<kBytes> gate[kVecsPerThread], up[kVecsPerThread];

  wait_for_predecessor();
#pragma unroll
  for (int32_t i = 0; i < kVecsPerThread; ++i) {
    const uint32_t at = start + uint32_t(i) * kThreads + threadIdx.x, down = at / vecs_per_row;
    row[i] = first_row + down;
    column[i] = int32_t(at - down * vecs_per_row) * K.vec;
    gate[i] = up[i] = Bits<kBytes>{};
    if (first + i * kThreads + threadIdx.x >= p.num_vecs) continue;
    const X* x = p.rows.row_of<const X>(p.x, row[i]) + column[i];
    gate[i] = load_stream<kBytes>(x);
    up[i] = load_stream<kBytes>(x + p.rows.n);
  }
  allow_successor();
#pragma unroll
  for (int32_t i = 0; i < kVecsPerThread; ++i) {
    if (first + i * kThreads + threadIdx.x >= p.num_vecs) continue;
    float g[K.vec], u[K.vec];
    unpack<X, K.vec>(gate[i], g);
    unpack<X, K.vec>(up[i], u);
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j) g[j] = activate<K.gate>(g[j]) * u[j];
    store_stream<kBytes>(p.rows.row_of<X>(p.out, row[i]) + column[i], pack<X, K.vec>(g));
  }
}

}  // namespace fulmen::cuda::act_and_mul
