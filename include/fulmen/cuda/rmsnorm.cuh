// SPDX-License-Identifier: Apache-2.0
// rmsnorm: each row is read once into registers, reduced, scaled and written; short weights stay in registers, long
// ones come from L1 each time. Launched by src/cuda/norm.cc.
#pragma once
#include <fulmen/cuda/rmsnorm.h>
#include <fulmen/cuda/tile/row.cuh>
#include <fulmen/cuda/tile/row_loop.cuh>

namespace fulmen::cuda::rmsnorm {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using W = type_of<K.weight>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  constexpr int32_t kRowBytes = S.per_lane() * int32_t(sizeof(X)), kWeightBytes = S.per_lane() * int32_t(sizeof(W));
  constexpr bool kAhead = S.registers_hold(2 * kRowBytes), kKeep = kWeightBytes <= 32;
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const int32_t lane = lane_of_row<S>();

  wait_for_predecessor();
  const RowTable<W, S, kKeep> weight(p.weight, p.rows.n, lane);
  const float out_scale = p.out_scale == nullptr ? 1.0f : 1.0f / *p.out_scale;
  allow_successor();
  const auto load = [&](Row<X, S>& x, int64_t row) {
    x.load(p.rows.row_of<const X>(p.x, row < 0 ? 0 : row), row < 0 ? 0 : p.rows.n, lane);
  };
  for_rows<S, kAhead, Row<X, S>>(p.rows.num_rows, load, [&](Row<X, S>& x, int64_t row) {
    float sum = 0;
    x.for_each([&](int32_t, const float(&v)[S.vec]) {
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) sum = fmaf(v[j], v[j], sum);
    });
    const float scale = out_scale / sqrtf(reducer.sum(sum) / float(p.rows.n) + p.eps);
    x.keep_packed();
    Out* out = p.rows.row_of<Out>(p.out, row < 0 ? 0 : row);
    x.for_each([&](int32_t i, const float(&v)[S.vec]) {
      float w[S.vec], y[S.vec];
      weight.unpack_to(i, w);
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) y[j] = v[j] * scale * (p.bias + w[j]);
      Row<Out, S>::store(out, row < 0 ? 0 : p.rows.n, lane, i, y);
    });
  });
}

}  // namespace fulmen::cuda::rmsnorm
