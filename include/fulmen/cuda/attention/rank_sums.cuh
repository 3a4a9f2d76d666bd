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
  // What the others' stores are counted by, and how many items it has counted those of.
  __device__ __forceinline__ static uint64_t* counter() {
    return reinterpret_cast<uint64_t*>(base() + shared_bytes(K, 2) - SharedLayout(K).bytes - 16);
  }
  __device__ __forceinline__ static uint32_t& round() { return reinterpret_cast<uint32_t*>(counter())[2]; }
  __device__ __forceinline__ static Piece get(int32_t rank, int32_t i, int32_t share, int32_t first) {
    const Bits<8> s = load_shared<8>(shared_address(state(rank, i / kPieces)));
    return piece_of(bit_cast<RowState>(s), load_shared<16>(shared_address(piece(rank * share + i - first))));
  }
};

// Before the first item: no CTA may write into another's memory before that one runs.
template <Key K>
__device__ __forceinline__ void start_rank_sums() {
  if (fresh_thread() == 0) start_receipt(RankSums<K>::counter()), RankSums<K>::round() = 0;
  sync_warp();
  arrive_cluster_running();
}
// Before an item's sums: nobody reads what was written for the item before.
__device__ __forceinline__ void await_rank_sums() { wait_cluster(); }

template <Key K, class Variant, class F>
__device__ __forceinline__ void for_rank_sums(int32_t num_rows, F f) {
  using Sums = RankSums<K>;
  constexpr int32_t kPieces = Sums::kPieces;
  const int32_t all = num_rows * kPieces, shift = last_bit(cluster_size()), size = 1 << shift;
  const int32_t share = (all + size - 1) >> shift, own = int32_t(cluster_rank());
  const int32_t first = own * share, end = first + share < all ? first + share : all;
  const uint32_t round = Sums::round();
  if (fresh_thread() == 0) {
    const int32_t rows = first < end ? (end - 1) / kPieces - first / kPieces + 1 : 0;
    expect_receipt(Sums::counter(), first < end ? uint32_t(size * ((end - first) * 16 + rows * 8)) : 0);
  }
  for_pieces<K>(num_rows, 0, [&](int32_t row, int32_t column) {
    const int32_t i = row * kPieces + column / 4, rank = int32_t(uint32_t(i) / uint32_t(share)), begin = rank * share;
    const Piece sum = shared_sum<K, Variant>(row, column);
    send_remote_4(Sums::piece(own * share + i - begin), uint32_t(rank), bits_of(sum.o).word, Sums::counter());
    const uint32_t state[2] = {bit_cast<uint32_t>(sum.state.m), bit_cast<uint32_t>(sum.state.d)};
    if (i == begin || column == 0) send_remote_2(Sums::state(own, row), uint32_t(rank), state, Sums::counter());
  });
  wait_receipt(Sums::counter(), round);
#pragma unroll 1
  for (int32_t i = first + fresh_thread(); i < end; i += num_threads(K)) {
    Piece ranks[kMaxCluster];
#pragma unroll
    for (int32_t rank = 0; rank < kMaxCluster; ++rank) {
      ranks[rank] = Sums::get(rank < size ? rank : 0, i, share, first);  // without branches all are asked for at once
      if (rank < size) continue;
      ranks[rank] = {};
      ranks[rank].state.m = kLowest;
    }
    Piece sum = add_all<Variant>(ranks);
    f(i / kPieces, i % kPieces * 4, sum);
  }
  if (reinterpret_cast<const Control*>(dynamic_shared())->next.index < 0) return;
  sync_cta();  // a warp without pieces may not have read the round yet, and would wait for one that needs its arrival
  if (fresh_thread() == 0) Sums::round() = round + 1;
  sync_warp();
  arrive_cluster();
}

}  // namespace fulmen::cuda::batch_attention
