// SPDX-License-Identifier: Apache-2.0
// Sums of an item's rows: how two or more are added up, and those of a CTA's warps, which meet in shared memory.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/cuda/attention/softmax.cuh>
#include <fulmen/cuda/ptx/cluster.cuh>
#include <fulmen/cuda/ptx/math.cuh>

namespace fulmen::cuda::batch_attention {

using State = attention::State<float>;

struct Piece {  // four elements of a row's sum
  State state;
  float o[4] = {};
};

// Takes in the keys after those that are in `sum`.
template <class Variant>
__device__ __forceinline__ void add(Piece& sum, const Piece& next) {
  State::Factors f{1, 1};
  if constexpr (Variant::kSoftmax)
    f = sum.state.merge(next.state);
  else
    sum.state.m = 0, sum.state.d = fmaxf(sum.state.d, next.state.d);
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) sum.o[i] = fmaf(sum.o[i], f.keep, next.o[i] * f.add);
}

__device__ __forceinline__ Piece piece_of(RowState state, const Bits<16>& o) {
  Piece p;
  p.state.m = state.m, p.state.d = state.d;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) p.o[i] = bit_cast<float>(o.word[i]);
  return p;
}
__device__ __forceinline__ Bits<16> bits_of(const float (&o)[4]) {
  Bits<16> b;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) b.word[i] = bit_cast<uint32_t>(o[i]);
  return b;
}

// Sums of different keys, all at once.
template <class Variant, int32_t N>
__device__ __forceinline__ Piece add_all(const Piece (&x)[N]) {
  Piece sum;
  if constexpr (Variant::kSoftmax) {
    sum.state.m = x[0].state.m;
#pragma unroll
    for (int32_t k = 1; k < N; ++k) sum.state.m = fmaxf(sum.state.m, x[k].state.m);
#pragma unroll
    for (int32_t k = 0; k < N; ++k) {  // maxima of no key are finite, and their sums 0
      const float weight = math::exp2(x[k].state.m - sum.state.m);
      sum.state.d = fmaf(weight, x[k].state.d, sum.state.d);
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) sum.o[i] = fmaf(weight, x[k].o[i], sum.o[i]);
    }
  } else {
#pragma unroll
    for (int32_t k = 0; k < N; ++k) add<Variant>(sum, x[k]);
  }
  return sum;
}

// Workers take items of the plan: CTAs, or clusters, whose CTAs share the keys of each item.
template <Key K>
__device__ __forceinline__ uint32_t ctas_per_worker() {
  if constexpr (K.warps_q > 1) return 1;
  return cluster_size();
}

// A warp's sums to shared memory, their columns from `begin` on. All warps are done with what lay there.
template <Key K>
__device__ __forceinline__ void share_sums(const States<K>& states, const Outputs<K>& out, int32_t begin) {
  constexpr int32_t kColumns = shared_columns(K);
  constexpr SharedLayout kShared(K);
  const int32_t thread = fresh_thread(), lane = thread % 32, g = lane / 4, t = lane % 4;
  const int32_t num_rows = reinterpret_cast<const Control*>(dynamic_shared())->item.plan.num_rows;
  const int32_t first = thread / 32 * (K.warps_q == 1 ? tile_q(K) : K.m_tiles * 16);
  RowState* to_states = reinterpret_cast<RowState*>(dynamic_shared() + kShared.states);
  float* to = reinterpret_cast<float*>(dynamic_shared() + kShared.stages);
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      if (K.warps_q == 1 && m * 16 + half * 8 >= num_rows) continue;  // of no row
      const int32_t row = first + m * 16 + half * 8 + g;
      float d = states.d[m][half];
      d += shuffle_xor(d, 1);
      d += shuffle_xor(d, 2);
      if (t == 0) to_states[row] = {states.m[m][half], d};
      float* o = to + row * kShared.output_pitch;
#pragma unroll
      for (int32_t n = 0; n < Outputs<K>::kTiles; n += 2) {
        const int32_t first_there = n * 8 / kColumns * kColumns;
        if (first_there != begin) continue;
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {  // element 2t + i % 2 of tile n + i / 2
          const int32_t column = kNarrow<K> ? n * 8 + 4 * t + i % 2 * 2 + i / 2 : (n + i / 2) * 8 + 2 * t + i % 2;
          o[column - first_there] = out.o[m][n + i / 2][half * 2 + i % 2];
        }
      }
    }
}

// Of a row, over the warps that have sums of it, in the order of their keys' tiles. column: one that is there.
template <Key K, class Variant>
__device__ __forceinline__ Piece shared_sum(int32_t row, int32_t column) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kRows = K.m_tiles * 16;
  const RowState* states = reinterpret_cast<const RowState*>(dynamic_shared() + kShared.states);
  const uint32_t from = shared_address(dynamic_shared() + kShared.stages);
  if (shared_columns(K) < K.d_vo) column %= shared_columns(K);
  const auto of_warp = [&](int32_t warp) {
    const int32_t at = warp * kRows + row;
    return piece_of(states[at], load_shared<16>(from + uint32_t((at * kShared.output_pitch + column) * 4)));
  };
  if constexpr (K.warps_q == 1) {
    Piece all[num_warps(K)];
#pragma unroll
    for (int32_t warp = 0; warp < num_warps(K); ++warp) all[warp] = of_warp(warp);
    return add_all<Variant>(all);
  }
  Piece sum;
  const int32_t num = reinterpret_cast<const Control*>(dynamic_shared())->spread;
#pragma unroll 1
  for (int32_t warp = 0; warp < num; ++warp) add<Variant>(sum, of_warp(warp));
  return sum;
}

// f(row, column) for every piece of the item's rows in the columns that are there from `begin` on; a thread always gets
// the same ones.
template <Key K, class F>
__device__ __forceinline__ void for_pieces(int32_t num_rows, int32_t begin, F f) {
  constexpr int32_t kPieces = shared_columns(K) / 4;
#pragma unroll 1
  for (int32_t i = fresh_thread(); i < num_rows * kPieces; i += num_threads(K)) {
    const int32_t column = begin + i % kPieces * 4;
    if (K.d_vo % shared_columns(K) == 0 || column < K.d_vo) f(i / kPieces, column);
  }
}

}  // namespace fulmen::cuda::batch_attention
