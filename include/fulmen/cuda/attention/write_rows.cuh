// SPDX-License-Identifier: Apache-2.0
// The short way out, for a tile that is not split and results of Q's type: each warp writes its own rows from
// registers, without waiting for another warp.
#pragma once
#include <fulmen/cuda/attention/finish.cuh>

namespace fulmen::cuda::batch_attention {

template <Key K, class Variant>
inline constexpr bool kWritesRows = K.warps_q > 1 && Variant::kSoftmax && !Variant::kFinishes;

template <Key K, class Variant>
__device__ __forceinline__ bool writes_rows(const ParamsOf<Variant>& p, const Item& item) {
  const Control& control = *reinterpret_cast<const Control*>(dynamic_shared());
  if (kOfCascade<Variant> && control.num_above > 0) return false;
  return control.spread == 1 && item.plan.slot < 0 && item.plan.split_len == 0 && p.out_dtype == K.q &&
         p.out_in_eights && p.d_vo % 8 == 0;
}

// The sums of a row in Q's type, of which each of four lanes has two columns of every eight (FP8: four of every 16): to
// `to`, of the lane's first ones, as far as `num_columns` from there. Lanes of a pair give each other one of two tiles'
// columns, so that four lanes write 32 bytes that follow each other.
template <Key K>
__device__ __forceinline__ void write_row(const Outputs<K>& out, int32_t m, int32_t half, float scale, char* to,
                                          int32_t num_columns, bool is_odd) {
#pragma unroll
  for (int32_t n = 0; n < Outputs<K>::kTiles; n += 2) {
    float x[4];
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) x[i] = out.o[m][n + i / 2][half * 2 + i % 2] * scale;
    Bits<8> four;
    if constexpr (kNarrow<K>) {  // columns 4t to 4t + 3 of both tiles
      four = {narrow2<Half<K>>(x[0], x[2]), narrow2<Half<K>>(x[1], x[3])};
    } else {
      const uint32_t low = narrow2<Half<K>>(x[0], x[1]), high = narrow2<Half<K>>(x[2], x[3]);
      const uint32_t other = shuffle_xor(is_odd ? low : high, 1);
      four = {is_odd ? other : low, is_odd ? high : other};
    }
    if (n * 8 < num_columns) store_stream<8>(to + n * 16, four);
  }
}

// Each lane looks after one of the four rows that its quad has parts of (two of 16-row warps): their lanes get the
// row's place and factor from it.
template <Key K, class Variant>
__device__ __forceinline__ void write_rows(const ParamsOf<Variant>& p, const Item& item, const States<K>& states,
                                           const Outputs<K>& out) {
  constexpr int32_t kRows = K.m_tiles * 2;  // of a quad
  const int32_t thread = fresh_thread(), t = thread % 4, mine = t % kRows;
  State state;
#pragma unroll
  for (int32_t i = 0; i < kRows; ++i) {
    float d = states.d[i / 2][i % 2];
    d += shuffle_xor(d, 1);
    d += shuffle_xor(d, 2);
    if (i == mine) state.m = states.m[i / 2][i % 2], state.d = d;
  }
  const int32_t first = thread / 32 * K.m_tiles * 16 + thread % 32 / 4, row = first + mine * 8;
  const RowOut to = row_out(p, item, row);
  const float factor = row_scale(p, item, to, state, p.v_scale);
  const int64_t place = to.token * p.out_token + to.head * p.out_head;
  if (t == mine && row < item.plan.num_rows && p.lse != nullptr)
    p.lse[to.token * p.lse_token + to.head * p.lse_head] = state.lse_log2() * p.lse_scale;
  const int32_t column = kNarrow<K> ? t * 4 : t % 2 * 8 + t / 2 * 4;
#pragma unroll
  for (int32_t i = 0; i < kRows; ++i) {
    const int32_t from = thread % 32 / 4 * 4 + i;
    const int64_t at = shuffle_from(place, from);
    write_row<K>(out, i / 2, i % 2, shuffle_from(factor, from), static_cast<char*>(p.out) + (at + column) * 2,
                 first + i * 8 < item.plan.num_rows ? p.d_vo - column : 0, t % 2 != 0);
  }
}

}  // namespace fulmen::cuda::batch_attention
