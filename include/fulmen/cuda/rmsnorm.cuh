// SPDX-License-Identifier: Apache-2.0
// rmsnorm: a row is read once into registers, reduced, scaled and written. Short weights are on their way with the row,
// long ones come from L1 or L2 after it. Launched by src/cuda/norm.cc.
#pragma once
#include <fulmen/cuda/rmsnorm.h>
#include <fulmen/cuda/tile/own_row.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::rmsnorm {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using W = type_of<K.weight>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  constexpr bool kKeep = S.per_lane() * int32_t(sizeof(W)) <= 32;
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const OwnRow<S> mine(p.rows);

  wait_for_predecessor();
  Row<X, S> x;
  x.load(mine.template of<const X>(p.x), mine.n, mine.lane);
  const RowTable<W, S, kKeep> weight(p.weight, p.rows.n, mine.lane);
  const float out_scale = p.out_scale == nullptr ? 1.0f : 1.0f / *p.out_scale;
  allow_successor();
  float sum = 0;
  x.for_each([&](int32_t, const float(&v)[S.vec]) {
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) sum = fmaf(v[j], v[j], sum);
  });
  const float scale = out_scale / sqrtf(reducer.sum(sum) / float(p.rows.n) + p.eps);
  x.keep_packed();
  Out* out = mine.template of<Out>(p.out);
  x.for_each([&](int32_t i, const float(&v)[S.vec]) {
    float w[S.vec], y[S.vec];
    weight.unpack_to(i, w);
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) y[j] = v[j] * scale * (p.bias + w[j]);
    Row<Out, S>::store(out, mine.n, mine.lane, i, y);
  });
}

}  // namespace fulmen::cuda::rmsnorm
