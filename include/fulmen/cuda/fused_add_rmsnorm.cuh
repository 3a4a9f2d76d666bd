// SPDX-License-Identifier: Apache-2.0
// fused_add_rmsnorm: a row of x and one of residual are read once, added, and written twice. The sum is computed twice
// from the packed rows, which costs an addition and saves the registers of an f32 row. Launched by src/cuda/norm.cc.
#pragma once
#include <fulmen/cuda/fused_add_rmsnorm.h>
#include <fulmen/cuda/tile/own_row.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::fused_add_rmsnorm {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using W = type_of<K.weight>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  constexpr bool kKeep = S.per_lane() * int32_t(sizeof(W)) <= 16;
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const OwnRow<S> mine(p.rows);
  X* const residual_row = mine.template of<X>(p.residual);

  wait_for_predecessor();
  Row<X, S> x, residual;
  x.load(mine.template of<const X>(p.x), mine.n, mine.lane);
  residual.load(residual_row, mine.n, mine.lane);
  const RowTable<W, S, kKeep> weight(p.weight, p.rows.n, mine.lane);
  const float out_scale = p.out_scale == nullptr ? 1.0f : 1.0f / *p.out_scale;
  allow_successor();
  float sum = 0;
#pragma unroll
  for (int32_t i = 0; i < S.vecs; ++i) {
    float a[S.vec], b[S.vec];
    x.unpack_to(i, a);
    residual.unpack_to(i, b);
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) a[j] += b[j], sum = fmaf(a[j], a[j], sum);
    Row<X, S>::store(residual_row, mine.n, mine.lane, i, a);
  }
  const float scale = out_scale / sqrtf(reducer.sum(sum) / float(p.rows.n) + p.eps);
  x.keep_packed();
  residual.keep_packed();
  Out* out = mine.template of<Out>(p.out);
#pragma unroll
  for (int32_t i = 0; i < S.vecs; ++i) {
    float a[S.vec], b[S.vec], w[S.vec];
    x.unpack_to(i, a);
    residual.unpack_to(i, b);
    weight.unpack_to(i, w);
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) a[j] = (a[j] + b[j]) * scale * (p.bias + w[j]);
    Row<Out, S>::store(out, mine.n, mine.lane, i, a);
  }
}

}  // namespace fulmen::cuda::fused_add_rmsnorm
