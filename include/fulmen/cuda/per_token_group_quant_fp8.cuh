// SPDX-License-Identifier: Apache-2.0
// per_token_group_quant_fp8: a group stays in registers from its maximum to its quantization. Launched by
// src/cuda/quantization.cc.
#pragma once
#include <fulmen/cuda/per_token_group_quant_fp8.h>
#include <fulmen/cuda/tile/quantize.cuh>
#include <fulmen/cuda/tile/row.cuh>
#include <fulmen/cuda/tile/row_loop.cuh>

namespace fulmen::cuda::per_token_group_quant_fp8 {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  constexpr bool kAhead = S.registers_hold(2 * S.per_lane() * int32_t(sizeof(X)));
  __shared__ float scratch[2][RowReducer<S>::kSlots];
  RowReducer<S> reducer{scratch};
  const int32_t lane = lane_of_row<S>();

  wait_for_predecessor();
  allow_successor();
  const auto load = [&](Row<X, S>& x, int64_t row) {
    x.load(p.rows.row_of<const X>(p.x, row < 0 ? 0 : row), row < 0 ? 0 : p.rows.n, lane);
  };
  for_rows<S, kAhead, Row<X, S>>(p.rows.num_rows, load, [&](Row<X, S>& x, int64_t row) {
    float top = p.eps;
    x.for_each([&](int32_t, const float(&v)[S.vec]) {
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) top = fmaxf(top, fabsf(v[j]));  // fmaxf passes NaN over
    });
    const float scale = scale_for<Out>(reducer.max(top), p.pow2_scales), factor = 1.0f / scale;
    x.keep_packed();
    Out* out = p.rows.row_of<Out>(p.out, row < 0 ? 0 : row);
    x.for_each([&](int32_t i, const float(&v)[S.vec]) {
      float y[S.vec];
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) y[j] = v[j] * factor;
      Row<Out, S>::store(out, row < 0 ? 0 : p.rows.n, lane, i, y);
    });
    if (lane == 0 && row >= 0) *p.rows.row_of<float>(p.scales, row) = scale;
  });
}

}  // namespace fulmen::cuda::per_token_group_quant_fp8
