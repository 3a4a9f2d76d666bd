// SPDX-License-Identifier: Apache-2.0
// layernorm: the row stays in registers for its two reductions, mean first, then the variance of centred values.
// Launched by src/cuda/norm.cc.
#pragma once
#include <fulmen/cuda/layernorm.h>
#include <fulmen/cuda/tile/own_row.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::layernorm {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using W = type_of<K.weight>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const OwnRow<S> mine(p.rows);

  wait_for_predecessor();
  Row<X, S> x;
  x.load(mine.template of<const X>(p.x), mine.n, mine.lane);
  const RowTable<W, S, false> gamma(p.gamma, p.rows.n, mine.lane), beta(p.beta, p.rows.n, mine.lane);
  const float out_scale = p.out_scale == nullptr ? 1.0f : 1.0f / *p.out_scale, num = float(p.rows.n);
  allow_successor();
  float sum = 0, squares = 0;
  x.for_each([&](int32_t, const float(&v)[S.vec]) {
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) sum += v[j];
  });
  const float mean = reducer.sum(sum) / num;
  x.keep_packed();
  x.for_each([&](int32_t i, const float(&v)[S.vec]) {
    const bool inside = Row<X, S>::at(i, mine.lane) < p.rows.n;  // zeros past the end would count as far from the mean
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) squares = inside ? fmaf(v[j] - mean, v[j] - mean, squares) : squares;
  });
  const float scale = 1.0f / sqrtf(reducer.sum(squares) / num + p.eps);
  x.keep_packed();
  Out* out = mine.template of<Out>(p.out);
  x.for_each([&](int32_t i, const float(&v)[S.vec]) {
    float g[S.vec], b[S.vec], y[S.vec];
    gamma.unpack_to(i, g);
    beta.unpack_to(i, b);
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) y[j] = fmaf((v[j] - mean) * scale, g[j], b[j]) * out_scale;
    Row<Out, S>::store(out, mine.n, mine.lane, i, y);
  });
}

}  // namespace fulmen::cuda::layernorm
