// SPDX-License-Identifier: Apache-2.0
// Writes the records of tiles that are in the registers of one CTA, by way of shared memory.
#pragma once
#include <fulmen/cuda/attention/prepare_records.cuh>

namespace fulmen::cuda::attention_prepare {

// The tiles of a thread, and what is counted of them.
template <Key K>
struct Own {
  Tile tile[K.tiles];
  bool mine[K.tiles];
  int32_t bucket[K.tiles];  // -1: no tile
  uint32_t place[K.tiles];  // among the records of the bucket
};

// The splits of a thread's tiles, and their places.
template <Key K>
struct OwnSplits {
  Split split[K.tiles];
  int32_t bucket[K.tiles];  // of pieces
  uint32_t place[K.tiles];  // in the bucket
  uint32_t slot[K.tiles];   // of the first piece
  uint32_t index[K.tiles];  // among the split tiles of this k
};

// Records go through shared memory, so that whole lines are written.
inline constexpr uint32_t kStaged = 512;

__device__ __forceinline__ void stage(uint32_t at, uint32_t first, const batch_attention::Record& record) {
  if (at - first >= kStaged) return;
  const uint32_t to = shared_address(shared().requests) + (at - first) * uint32_t(sizeof record);
  const RecordWords words = bit_cast<RecordWords>(record);
#pragma unroll
  for (int32_t i = 0; i < int32_t(sizeof record) / 16; ++i)
    store_shared<16>(to + uint32_t(16 * i),
                     {words.word[4 * i], words.word[4 * i + 1], words.word[4 * i + 2], words.word[4 * i + 3]});
}
// Of n records those from `first` on that were staged; all threads call, after a barrier.
template <Key K>
__device__ __forceinline__ void write_staged(const Params& p, uint32_t first, uint32_t n) {
  const int32_t num_bytes = int32_t(math::min(n - first, kStaged) * sizeof(batch_attention::Record));
  const uint32_t from = shared_address(shared().requests);
  char* to = record_at(p, first);
#pragma unroll 2
  for (int32_t i = int32_t(threadIdx.x) * 16; i < num_bytes; i += K.threads * 16)
    store_stream<16>(to + i, load_shared<16>(from + uint32_t(i)));
}

// Merges as well: behind the records, in the order of their numbers.
__device__ __forceinline__ int32_t* staged_merges() {
  static_assert(kStaged * sizeof(batch_attention::Record) + kFewThreads * sizeof(PlanMerge) <=
                sizeof(Shared::requests));
  return reinterpret_cast<int32_t*>(shared().requests) + kStaged * sizeof(batch_attention::Record) / 4;
}
__device__ __forceinline__ void stage_merge(const SplitTile& s) {
  reinterpret_cast<PlanMerge*>(staged_merges())[s.merge] = merge_of(s);
}
template <Key K>
__device__ __forceinline__ void write_merges(const Params& p, int32_t n) {
  int32_t* to = reinterpret_cast<int32_t*>(p.workspace + p.head.merges);
  n = math::min(n, p.max_merges) * int32_t(sizeof(PlanMerge) / 4);
#pragma unroll 2
  for (int32_t i = int32_t(threadIdx.x); i < n; i += K.threads) to[i] = staged_merges()[i];
}

// f(tile, piece) for the pieces of split tiles, each tile's by as many lanes as tiles have pieces.
template <Key K, class F>
__device__ __forceinline__ void for_pieces(const SplitTile* tiles, int32_t num_tiles, int32_t shift, F f) {
  const int32_t thread = int32_t(threadIdx.x), step = 1 << shift;
#pragma unroll 1
  for (int32_t i = thread >> shift; i < num_tiles; i += K.threads >> shift) {
    const SplitTile tile = tiles[i];
#pragma unroll 1
    for (int32_t piece = thread & (step - 1); piece < tile.split.num_pieces; piece += step) f(tile, piece);
  }
}

// Lanes for the pieces of a tile: 2^this.
template <Key K>
__device__ __forceinline__ int32_t lanes_of_tile() {
  const Shared& s = shared();
  uint32_t num_splits = 0;
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) num_splits += s.split_tiles[k];
  const uint32_t average = num_splits == 0 ? 1 : uint32_t(over(float(s.num_slots), float(num_splits)) + 0.999f);
  return average <= 1 ? 0 : math::min(last_bit(average - 1) + 1, 5);
}

// This thread's split tile of k, whose first piece is record `at`.
template <Key K>
__device__ __forceinline__ SplitTile split_tile(const Params& p, const Own<K>& own, const OwnSplits<K>& splits,
                                                int32_t k, uint32_t at, uint32_t first_merge) {
  return {own.tile[k],
          splits.split[k],
          int32_t(at),
          int32_t(splits.slot[k]),
          int32_t(first_merge + splits.index[k]),
          split_start(p, own.tile[k], splits.split[k].step)};
}

// Where a thread has several tiles few are split, if any: those are written as they come, over what was staged.
template <Key K>
__device__ __forceinline__ void write_directly(const Params& p, const Own<K>& own, const OwnSplits<K>& splits,
                                               const uint32_t (&at)[K.tiles], int32_t shift) {
  Shared& s = shared();
  SplitTile* tiles = reinterpret_cast<SplitTile*>(s.requests);
  static_assert(K.threads * sizeof(SplitTile) <= sizeof s.requests);
  uint32_t merge = 0;
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) {
    const uint32_t num_splits = s.split_tiles[k];
    if (num_splits == 0) continue;
    if (splits.split[k].num_pieces > 1) tiles[splits.index[k]] = split_tile<K>(p, own, splits, k, at[k], merge);
    sync_cta();
    for_pieces<K>(tiles, int32_t(num_splits), shift,
                  [&](const SplitTile& tile, int32_t i) { write_piece(p, tile, i); });
    merge += num_splits;
    if (k + 1 < K.tiles) sync_cta();
  }
}

// n records.
template <Key K>
__device__ __forceinline__ void write_all(const Params& p, const Own<K>& own, const OwnSplits<K>& splits, uint32_t n) {
  Shared& s = shared();
  SplitTile* tiles = reinterpret_cast<SplitTile*>(s.splits);
  const uint32_t* base = s.piece_base[warp_index()];
  const int32_t shift = lanes_of_tile<K>();
  constexpr bool kStagesPieces = K.tiles == 1;
  static_assert(!kStagesPieces || K.threads * sizeof(SplitTile) <= sizeof s.splits);
  const bool by_owner = shift <= 1;  // so few pieces that a tile's thread writes them
  uint32_t at[K.tiles];
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) at[k] = own.mine[k] ? base[splits.bucket[k]] + splits.place[k] : 0;
  SplitTile mine{};
  mine.split.num_pieces = 0;
  if (kStagesPieces && splits.split[0].num_pieces > 1) {
    mine = split_tile<K>(p, own, splits, 0, at[0], 0);
    stage_merge(mine);
    if (!by_owner) tiles[splits.index[0]] = mine;
  }
  const auto put = [&](const SplitTile& tile, int32_t i, uint32_t first) {
    stage(uint32_t(tile.at + i), first, piece_record(tile, i));
    if (first == 0 && has_slots(p, tile)) write_slot(p, tile, i);
  };
  if (kStagesPieces && !by_owner) sync_cta();
#pragma unroll 1
  for (uint32_t first = 0; first < n; first += kStaged) {
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k)
      if (splits.split[k].num_pieces == 1) stage(at[k], first, whole_record(p, own.tile[k]));
    if (kStagesPieces && by_owner) {
#pragma unroll 1
      for (int32_t i = 0; i < mine.split.num_pieces; ++i) put(mine, i, first);
    } else if (kStagesPieces) {
      for_pieces<K>(tiles, int32_t(s.split_tiles[0]), shift,
                    [&](const SplitTile& tile, int32_t i) { put(tile, i, first); });
    }
    sync_cta();
    if (kStagesPieces && first == 0) write_merges<K>(p, int32_t(s.split_tiles[0]));
    write_staged<K>(p, first, n);
    sync_cta();
  }
  if constexpr (!kStagesPieces) write_directly<K>(p, own, splits, at, shift);
}

// Where no tile is split.
template <Key K>
__device__ __forceinline__ void write_tiles(const Params& p, const Own<K>& own, uint32_t n) {
#pragma unroll 1
  for (uint32_t first = 0; first < n; first += kStaged) {
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k)
      if (own.mine[k]) stage(shared().base[own.bucket[k]] + own.place[k], first, whole_record(p, own.tile[k]));
    sync_cta();
    write_staged<K>(p, first, n);
    if (first + kStaged < n) sync_cta();
  }
}

}  // namespace fulmen::cuda::attention_prepare
