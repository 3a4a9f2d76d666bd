// SPDX-License-Identifier: Apache-2.0
// Sums of the CTAs of a cluster that share an item's keys, each of its part of them. Each CTA adds up a share of the
// rows' pieces: the others write theirs into its shared memory, beside the stages, which it may still be reading.
#pragma once
#include <fulmen/cuda/attention/sums.cuh>

namespace fulmen::cuda::batch_attention {

template <Key K>
struct RankSums {
  static constexpr int32_t kPieces = K.d_vo / 4;
  __device__ __forceinline__ static char* base() {
    constexpr SharedLayout kShared(K);
    return dynamic_shared() + kShared.bytes;
  }
  // slot: a rank's piece among those of this CTA.
  __device__ __forceinline__ static uint32_t* piece(int32_t slot) {
    return reinterpret_cast<uint32_t*>(base() + slot * 16);
  }
  __device__ __forceinline__ static uint32_t* state(int32_t rank, int32_t row) {
    constexpr int32_t kFirst = tile_q(K) * K.d_vo * 4 + kMaxCluster * 16;
    return reinterpret_cast<uint32_t*>(base() + kFirst + (rank * tile_q(K) + row) * 8);
  }
  __device__ __forceinline__ static Piece get(int32_t rank, int32_t i, int32_t share, int32_t first) {
    const Bits<8> s = load_shared<8>(shared_address(state(rank, i / kPieces)));
    return piece_of(bit_cast<RowState>(s), load_shared<16>(shared_address(piece(rank * share + i - first))));
  }
};

// Before the first item: no CTA may write into another's memory before that one runs.
__device__ __forceinline__ void start_rank_sums() { arrive_cluster(); }

template <Key K, class Variant, class F>
__device__ __forceinline__ void for_rank_sums(int32_t num_rows, F f) {
  using Sums = RankSums<K>;
  constexpr int32_t kPieces = Sums::kPieces;
  const int32_t all = num_rows * kPieces, shift = last_bit(cluster_size()), size = 1 << shift;
  const int32_t share = (all + size - 1) >> shift, own = int32_t(cluster_rank());
  wait_cluster();  // nobody reads what was written for the item before
  for_pieces<K>(num_rows, [&](int32_t row, int32_t column) {
    const int32_t i = row * kPieces + column / 4, rank = int32_t(uint32_t(i) / uint32_t(share)), first = rank * share;
    const Piece sum = shared_sum<K, Variant>(row, column);
    store_remote_4(Sums::piece(own * share + i - first), uint32_t(rank), bits_of(sum.o).word);
    const uint32_t state[2] = {bit_cast<uint32_t>(sum.state.m), bit_cast<uint32_t>(sum.state.d)};
    if (i == first || column == 0) store_remote_2(Sums::state(own, row), uint32_t(rank), state);
  });
  sync_cluster();
  const int32_t first = own * share, end = first + share < all ? first + share : all;
#pragma unroll 1
  for (int32_t i = first + fresh_thread(); i < end; i += num_threads(K)) {
    Piece ranks[kMaxCluster];
#pragma unroll
    for (int32_t rank = 0; rank < kMaxCluster; ++rank) {
      if (rank < size)
        ranks[rank] = Sums::get(rank, i, share, first);
      else
        ranks[rank].state.m = kLowest;
    }
    Piece sum = add_all<Variant>(ranks);
    f(i / kPieces, i % kPieces * 4, sum);
  }
  sync_warp();
  arrive_cluster();
}

}  // namespace fulmen::cuda::batch_attention
