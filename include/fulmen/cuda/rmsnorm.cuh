// SPDX-License-Identifier: Apache-2.0
// rmsnorm: each row is read once into registers, reduced, scaled and written. A CTA walks over rows with the weights in
// registers, and the next row is on its way while the current one is reduced. Launched by src/cuda/norm.cc.
#pragma once
#include <fulmen/cuda/rmsnorm.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/reduce.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::rmsnorm {

// Elements before the row's first one; 64-bit, as rows lie anywhere in memory.
FULMEN_DEVICE int64_t offset_of(int64_t row, int32_t num_heads, int64_t token_stride, int64_t head_stride) {
  if (num_heads == 1) return row * token_stride;
  const uint32_t token = uint32_t(row) / uint32_t(num_heads);  // 32 bits: the host refuses more rows of strided heads
  return int64_t(token) * token_stride + int64_t(uint32_t(row) - token * uint32_t(num_heads)) * head_stride;
}

template <Key K>
FULMEN_DEVICE void run(const Params& p) {
  using X = type_of<K.x>;
  using W = type_of<K.weight>;
  constexpr RowShape S = K.shape();
  __shared__ float scratch[2][S.lanes > 32 ? S.lanes / 32 : 1];
  RowReducer<S> reducer{scratch};
  const int32_t lane = int32_t(threadIdx.x) % S.lanes;
  const int64_t step = int64_t(gridDim.x) * S.rows_per_cta();
  int64_t row = int64_t(blockIdx.x) * S.rows_per_cta() + int32_t(threadIdx.x) / S.lanes;

  constexpr int32_t kRowBytes = S.per_lane() * int32_t(sizeof(X)), kWeightBytes = S.per_lane() * int32_t(sizeof(W));
  constexpr bool kAhead = S.registers_hold(2 * kRowBytes), kKeep = S.registers_hold(2 * kRowBytes + kWeightBytes);
  const auto load = [&](Row<X, S>& to, int64_t r) {
    const int64_t offset = offset_of(r < p.num_rows ? r : 0, p.num_heads, p.x_token, p.x_head);
    to.load(static_cast<const X*>(p.x) + offset, r < p.num_rows ? p.n : 0, lane);
  };
  wait_for_predecessor();
  Row<X, S> next;
  load(next, row);
  const RowTable<W, S, kKeep> weight(p.weight, p.n, lane);
  allow_successor();

  for (int64_t base = int64_t(blockIdx.x) * S.rows_per_cta(); base < p.num_rows; base += step, row += step) {
    Row<X, S> x = next;
    if constexpr (kAhead) load(next, row + step);
    float sum = 0;
#pragma unroll
    for (int32_t i = 0; i < S.vecs; ++i) {
      float v[S.vec];
      x.unpack_to(i, v);
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) sum = fmaf(v[j], v[j], sum);
    }
    const float scale = 1.0f / sqrtf(reducer.sum(sum) / float(p.n) + p.eps);
    x.keep_packed();
    const int32_t n = row < p.num_rows ? p.n : 0;
    X* out = static_cast<X*>(p.out) + offset_of(n == 0 ? 0 : row, p.num_heads, p.out_token, p.out_head);
#pragma unroll
    for (int32_t i = 0; i < S.vecs; ++i) {
      float v[S.vec], w[S.vec];
      x.unpack_to(i, v);
      weight.unpack_to(i, w);
#pragma unroll
      for (int32_t j = 0; j < S.vec; ++j) v[j] = v[j] * scale * (p.bias + w[j]);
      Row<X, S>::store(out, n, lane, i, v);
    }
    if constexpr (!kAhead) load(next, row + step);
  }
}

}  // namespace fulmen::cuda::rmsnorm
