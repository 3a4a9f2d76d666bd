// SPDX-License-Identifier: Apache-2.0
// The short way out, for a tile that is not split and results of Q's type: each warp writes its own rows, by way of the
// shared memory that held their queries, without waiting for another warp.
#pragma once
#include <fulmen/cuda/attention/finish.cuh>

namespace fulmen::cuda::batch_attention {

template <Key K, class Variant>
inline constexpr bool kWritesRows = K.warps_q > 1 && K.d_vo <= K.d_qk&& Variant::kSoftmax && !Variant::kFinishes;

template <Key K, class Variant>
__device__ __forceinline__ bool writes_rows(const ParamsOf<Variant>& p, const Item& item) {
  const Control& control = *reinterpret_cast<const Control*>(dynamic_shared());
  if (kOfCascade<Variant> && control.num_above > 0) return false;
  return control.spread == 1 && item.plan.slot < 0 && item.plan.split_len == 0 && p.out_dtype == K.q &&
         p.out_in_eights && p.d_vo % 8 == 0;
}

// The sums of a row in Q's type to shared memory, `to`: of the row, swizzled by `turn`.
template <Key K>
__device__ __forceinline__ void share_row(const Outputs<K>& out, int32_t m, int32_t half, float scale, uint32_t to,
                                          int32_t turn, int32_t t) {
#pragma unroll
  for (int32_t n = 0; n < Outputs<K>::kTiles; n += 2) {
    float x[4];
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) x[i] = out.o[m][n + i / 2][half * 2 + i % 2] * scale;
    if constexpr (kNarrow<K>) {  // columns 4t to 4t + 3 of both tiles
      const Bits<8> four{narrow2<Half<K>>(x[0], x[2]), narrow2<Half<K>>(x[1], x[3])};
      store_shared<8>(to + uint32_t(((n + t / 2) ^ turn) * 16 + t % 2 * 8), four);
    } else {
      store_shared<4>(to + uint32_t((n ^ turn) * 16 + t * 4), Bits<4>{narrow2<Half<K>>(x[0], x[1])});
      store_shared<4>(to + uint32_t(((n + 1) ^ turn) * 16 + t * 4), Bits<4>{narrow2<Half<K>>(x[2], x[3])});
    }
  }
}

template <Key K, class Variant>
__device__ __forceinline__ void write_rows(const ParamsOf<Variant>& p, const Item& item, const States<K>& states,
                                           const Outputs<K>& out) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kRows = K.m_tiles * 16, kPitch = K.d_qk * 2, kChunks = K.d_vo / 8;
  using At = Swizzle<K.d_qk / 8>;
  const int32_t thread = fresh_thread(), lane = thread % 32, first = thread / 32 * kRows;
  const uint32_t mine = shared_address(dynamic_shared() + kShared.q) + uint32_t(first * kPitch);
  sync_warp();  // all lanes have read their queries
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      const int32_t row = m * 16 + half * 8 + lane / 4;
      State state;
      state.m = states.m[m][half], state.d = states.d[m][half];
      state.d += shuffle_xor(state.d, 1);
      state.d += shuffle_xor(state.d, 2);
      const RowOut to = row_out(p, item, first + row);
      const float scale = row_scale(p, item, to, state, p.v_scale);
      share_row<K>(out, m, half, scale, mine + uint32_t(row * kPitch), At::turn(row), lane % 4);
      if (lane % 4 == 0 && p.lse != nullptr && first + row < item.plan.num_rows)
        p.lse[to.token * p.lse_token + to.head * p.lse_head] = state.lse_log2() * p.lse_scale;
    }
  sync_warp();
#pragma unroll 4
  for (int32_t i = lane; i < kRows * kChunks; i += 32) {
    const int32_t row = i / kChunks, chunk = i % kChunks;
    if (first + row >= item.plan.num_rows || chunk * 8 >= p.d_vo) continue;
    const RowOut to = row_out(p, item, first + row);
    char* at = static_cast<char*>(p.out) + (to.token * p.out_token + to.head * p.out_head + chunk * 8) * 2;
    store_stream<16>(at, load_shared<16>(mine + uint32_t(At::at(row, chunk))));
  }
}

}  // namespace fulmen::cuda::batch_attention
