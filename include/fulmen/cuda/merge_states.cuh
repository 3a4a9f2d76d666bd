// SPDX-License-Identifier: Apache-2.0
// merge_states: a group of lanes owns one (token, head). The first states' vectors are on their way while their
// log-sum-exps are read. Launched by src/cuda/merge.cc.
#pragma once
#include <fulmen/cuda/merge_states.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/ptx/warp.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::merge_states {

__device__ __forceinline__ float lse_of(const Params& p, int64_t row, int32_t state) {
  const float* s = p.rows.row_of<const float>(state == 0 ? p.s : p.s_rest, row);
  return state == 0 ? *s : s[int64_t(state - 1) * p.s_state];
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using V = type_of<K.v>;
  using Out = type_of<K.out>;
  constexpr RowShape S = K.shape();
  constexpr int32_t kBatch = K.batch;
  static_assert(S.lanes <= 32, "a row is a warp's, so that it may write lse over s");
  const int32_t lane = int32_t(threadIdx.x) % S.lanes, n = p.rows.n;
  const int64_t row = int64_t(blockIdx.x) * S.rows_per_cta() + int32_t(threadIdx.x) / S.lanes;
  wait_for_predecessor();
  allow_successor();
  if (row >= p.rows.num_rows) return;
  if (p.mask != nullptr && p.mask[row / p.rows.num_heads] == 0) return;

  float top = -kInfinity, sum = 0, acc[S.vecs][S.vec] = {};
  const int32_t num_states = kBatch == 2 ? 2 : p.num_states;
  for (int32_t first = 0; first < num_states; first += kBatch) {
    Row<V, S> v[kBatch];
    float s[kBatch];
#pragma unroll
    for (int32_t i = 0; i < kBatch; ++i) {
      const int32_t state = first + i;
      s[i] = state < num_states ? lse_of(p, row, state) : -kInfinity;
      const V* from = p.rows.row_of<const V>(state == 0 ? p.v : p.v_rest, row);
      v[i].load(from + (state == 0 ? 0 : (state - 1) * p.v_state), state < num_states ? n : 0, lane);
    }
    if (first == 0) {
#pragma unroll
      for (int32_t i = 0; i < kBatch; ++i) top = fmaxf(top, s[i]);
      for (int32_t i = kBatch; i < num_states; ++i) top = fmaxf(top, lse_of(p, row, i));
    }
#pragma unroll
    for (int32_t i = 0; i < kBatch; ++i) {
      if (s[i] == -kInfinity) continue;  // neutral, whatever its v holds
      const float w = exp2f((s[i] - top) * p.to_log2);
      sum += w;
      v[i].for_each([&](int32_t k, const float(&x)[S.vec]) {
#pragma unroll
        for (int32_t j = 0; j < S.vec; ++j) acc[k][j] = fmaf(w, x[j], acc[k][j]);
      });
    }
  }
  const float scale = sum == 0 ? 0 : 1.0f / sum;  // NaN of a NaN
  Out* out = p.rows.row_of<Out>(p.out, row);
#pragma unroll
  for (int32_t k = 0; k < S.vecs; ++k) {
#pragma unroll
    for (int32_t j = 0; j < S.vec; ++j) acc[k][j] *= scale;
    Row<Out, S>::store(out, n, lane, k, acc[k]);
  }
  sync_warp();  // lse may be s: every lane has read it
  if (lane == 0) *p.rows.row_of<float>(p.lse, row) = sum == 0 ? -kInfinity : top + log2f(sum) / p.to_log2;
}

}  // namespace fulmen::cuda::merge_states
