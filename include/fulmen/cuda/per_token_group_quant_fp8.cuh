// SPDX-License-Identifier: Apache-2.0
// per_token_group_quant_fp8: a group stays in registers from its maximum to its quantization. Launched by
// src/cuda/quantization.cc.
#pragma once
#include <fulmen/cuda/per_token_group_quant_fp8.h>
#include <fulmen/cuda/tile/own_row.cuh>
#include <fulmen/cuda/tile/quantize.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::per_token_group_quant_fp8 {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const OwnRow<S> mine(p.rows);

  wait_for_predecessor();
  Row<X, S> x;
  x.load(mine.template of<const X>(p.x), mine.n, mine.lane);
  allow_successor();
  float top = p.eps;
  x.for_each([&](int32_t, const float(&v)[S.vec]) {
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) top = fmaxf(top, fabsf(v[j]));  // fmaxf passes NaN over
  });
  const float scale = scale_for<Out>(reducer.max(top), p.pow2_scales), factor = 1.0f / scale;
  x.keep_packed();
  Out* out = mine.template of<Out>(p.out);
  x.for_each([&](int32_t i, const float(&v)[S.vec]) {
    float y[S.vec];
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) y[j] = v[j] * factor;
    Row<Out, S>::store(out, mine.n, mine.lane, i, y);
  });
  if (mine.lane == 0 && mine.n > 0) *mine.template of<float>(p.scales) = scale;
}

}  // namespace fulmen::cuda::per_token_group_quant_fp8
