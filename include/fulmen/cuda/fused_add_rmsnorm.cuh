// SPDX-License-Identifier: Apache-2.0
// fused_add_rmsnorm: a row of x and one of residual are read once, added, and written twice. The sum is computed twice
// from the packed rows, which costs an addition and saves the registers of an f32 row. Launched by src/cuda/norm.cc.
#pragma once
#include <fulmen/cuda/fused_add_rmsnorm.h>
#include <fulmen/cuda/tile/row.cuh>
#include <fulmen/cuda/tile/row_loop.cuh>

namespace fulmen::cuda::fused_add_rmsnorm {

template <class X, RowShape S>
struct Pair {
  Row<X, S> x, residual;
};

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using W = type_of<K.weight>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  constexpr int32_t kRowBytes = 2 * S.per_lane() * int32_t(sizeof(X)), kWeightBytes = S.per_lane() * int32_t(sizeof(W));
  constexpr bool kAhead = S.registers_hold(2 * kRowBytes), kKeep = kWeightBytes <= 32;
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const int32_t lane = lane_of_row<S>();

  wait_for_predecessor();
  const RowTable<W, S, kKeep> weight(p.weight, p.rows.n, lane);
  const float out_scale = p.out_scale == nullptr ? 1.0f : 1.0f / *p.out_scale;
  allow_successor();
  const auto load = [&](Pair<X, S>& r, int64_t row) {
    const int32_t n = row < 0 ? 0 : p.rows.n;
    r.x.load(p.rows.row_of<const X>(p.x, row < 0 ? 0 : row), n, lane);
    r.residual.load(p.rows.row_of<const X>(p.residual, row < 0 ? 0 : row), n, lane);
  };
  for_rows<S, kAhead, Pair<X, S>>(p.rows.num_rows, load, [&](Pair<X, S>& r, int64_t row) {
    const int32_t n = row < 0 ? 0 : p.rows.n;
    X* residual = p.rows.row_of<X>(p.residual, row < 0 ? 0 : row);
    Out* out = p.rows.row_of<Out>(p.out, row < 0 ? 0 : row);
    float sum = 0;
#pragma unroll
    for (int32_t i = 0; i < S.vecs; ++i) {
      float a[S.vec], b[S.vec];
      r.x.unpack_to(i, a);
      r.residual.unpack_to(i, b);
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) a[j] += b[j], sum = fmaf(a[j], a[j], sum);
      Row<X, S>::store(residual, n, lane, i, a);
    }
    const float scale = out_scale / sqrtf(reducer.sum(sum) / float(p.rows.n) + p.eps);
    r.x.keep_packed();
    r.residual.keep_packed();
#pragma unroll
    for (int32_t i = 0; i < S.vecs; ++i) {
      float a[S.vec], b[S.vec], w[S.vec];
      r.x.unpack_to(i, a);
      r.residual.unpack_to(i, b);
      weight.unpack_to(i, w);
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) a[j] = (a[j] + b[j]) * scale * (p.bias + w[j]);
      Row<Out, S>::store(out, n, lane, i, a);
    }
  });
}

}  // namespace fulmen::cuda::fused_add_rmsnorm
