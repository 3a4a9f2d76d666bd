// SPDX-License-Identifier: Apache-2.0
// Plans any number of tiles, in passes over them, in one CTA or in a cluster. Records within a bucket, and slots, are
// taken in any order.
#pragma once
#include <fulmen/cuda/attention/prepare_records.cuh>
#include <fulmen/cuda/attention/prepare_splits.cuh>

namespace fulmen::cuda::attention_prepare {

// Counts slots, and records by the cost of a tile's longest piece.
template <Key K>
__device__ __forceinline__ void count_pieces(const Params& p, const Tiles<K>& tiles, float limit) {
  clear_buckets<K>();
  uint32_t slots = 0, merges = 0;
  tiles.for_passes([&](int32_t first) {
    int32_t bucket = -1;
    uint32_t n = 0;
    Tile t{};
    const bool mine = tiles.is_mine(first);
    if (mine) t = tiles.get(first);
    const Split split = split_by<K>(p, t, mine, limit);
    if (mine) {
      n = uint32_t(split.num_pieces);
      slots += n > 1 ? n : 0, merges += n > 1;
      bucket = bucket_of(cost_of(p, t.num_rows, split.longest));
    }
    add_to_bucket<false>(bucket, n, 0);
  });
  slots = add_warp(slots), merges = add_warp(merges);
  if (warp_lane() == 0 && slots > 0) atomic_add(&shared().num_slots, slots), atomic_add(&shared().num_merges, merges);
  sync_cluster();
}

template <Key K>
__device__ __forceinline__ void count_all_pieces(const Params& p, const Tiles<K>& tiles, float limit) {
#pragma unroll 1
  for (bool rationed = false;; rationed = true) {
    count_pieces(p, tiles, limit);
    if (rationed || warp_share_of(&shared().num_slots).total <= uint32_t(shared().max_slots)) break;
    ration_slots(p, tiles, limit);
  }
}

// Counts become the first places of the buckets' records.
template <Key K>
__device__ __forceinline__ void place_buckets() {
  Shared& s = shared();
  const uint32_t slots = warp_share_of(&s.num_slots).before, merges = warp_share_of(&s.num_merges).before;
  const uint32_t total = for_sums_before<K>(
      [&](int32_t bucket, uint32_t before, const Share& own) { s.count[bucket] = before + own.before; });
  if (threadIdx.x == 0) s.num_records = total, s.num_slots = (merges << 16) + slots, s.slots_taken = 0;
  sync_cta();
}

// Takes n from a counter, or none (counter null); all lanes call. Lanes of the first one's counter go together.
__device__ __forceinline__ uint32_t take(uint32_t* counter, uint32_t n) {
  const uint32_t members = ballot(counter != nullptr);
  if (members == 0) return 0;
  const int32_t lane = warp_lane(), leader = first_bit(members);
  const int64_t address = reinterpret_cast<int64_t>(counter), first = shuffle_from(address, leader);
  const bool same = address == first;
  const uint32_t through = sum_through(same ? n : 0u);
  const uint32_t sum = shuffle_from(through, 31);
  uint32_t at = 0;
  if (lane == leader) at = atomic_add_local(counter, sum);
  at = shuffle_from(at, leader) + through - n;
  if (counter != nullptr && !same) at = atomic_add_local(counter, n);
  return at;
}

// The same struct of another lane, each lane's choice.
template <class T>
__device__ __forceinline__ T of_lane(const T& x, int32_t lane) {
  struct Words {
    int32_t word[sizeof(T) / 4];
  };
  Words words = bit_cast<Words>(x);
#pragma unroll
  for (int32_t& word : words.word) word = shuffle_from(word, lane);
  return bit_cast<T>(words);
}

// The pieces of all lanes' tiles, n of each, 32 at a time.
__device__ __forceinline__ void write_pieces(const Params& p, const SplitTile& own, uint32_t n) {
  const uint32_t through = sum_through(n);
  const uint32_t total = shuffle_from(through, 31);
#pragma unroll 1
  for (uint32_t first = 0; first < total; first += 32) {
    const uint32_t i = first + uint32_t(warp_lane());
    int32_t owner = 0;  // the first lane whose pieces go beyond i
#pragma unroll
    for (int32_t step = 16; step > 0; step /= 2)
      if (shuffle_from(through, owner + step - 1) <= i) owner += step;
    const SplitTile tile = of_lane(own, owner);
    const uint32_t before = shuffle_from(through - n, owner);
    if (i < total) write_piece(p, tile, int32_t(i - before));
  }
}

template <Key K>
__device__ __forceinline__ void write_records(const Params& p, const Tiles<K>& tiles, float limit) {
  Shared& s = shared();
  tiles.for_passes([&](int32_t first) {
    const bool mine = tiles.is_mine(first);
    SplitTile own{};
    own.split.num_pieces = 1;
    uint32_t* bucket = nullptr;
    if (mine) own.tile = tiles.get(first);
    own.split = split_by<K>(p, own.tile, mine, limit);
    if (mine) bucket = &s.count[bucket_of(cost_of(p, own.tile.num_rows, own.split.longest))];
    const uint32_t n = uint32_t(own.split.num_pieces);
    own.at = int32_t(take(bucket, n));
    if (mine && n == 1) write_record(p, uint32_t(own.at), whole_record(p, own.tile));
    if (ballot(n > 1) == 0) return;
    const uint32_t places = take(n > 1 ? &s.num_slots : nullptr, (1u << 16) + n);  // merges above slots
    own.slot = int32_t(places & 0xffff), own.merge = int32_t(places >> 16);
    if (n > 1) own.start = split_start(p, own.tile, own.split.step);
    write_pieces(p, own, n > 1 ? n : 0);
  });
}

template <Key K>
__device__ __forceinline__ void plan_many(const Params& p) {
  const Tiles<K> tiles(p, read_requests<K>(p));
  const float limit = choose_limit<K>(p, collect_costs(p, tiles));
  count_all_pieces(p, tiles, limit);
  place_buckets<K>();
  write_records(p, tiles, limit);
}

}  // namespace fulmen::cuda::attention_prepare
