// SPDX-License-Identifier: Apache-2.0
// Plans attention on the device, in one CTA, or in a cluster where there are more tiles than threads:
//
//   index tensors -> requests -> tiles -> costs by bucket -> limit of a piece -> records by bucket, longest first
//
// Records within a bucket, and slots, are taken in any order; nothing that is computed later depends on it. Launched by
// src/cuda/attention_prepare.cc.
#pragma once
#include <fulmen/cuda/attention/prepare_ahead.cuh>
#include <fulmen/cuda/attention/prepare_splits.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::attention_prepare {

using attention::PlanItem, attention::PlanMerge, attention::PlanRequest;

// Counts slots, and records by the cost of a tile's longest piece. only: the split of a thread's only tile.
template <Key K>
__device__ __forceinline__ void count_pieces(const Params& p, const Tiles<K>& tiles, float limit, Split& only) {
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
      if (!K.many) only = split;
      n = uint32_t(split.num_pieces);
      slots += n > 1 ? n : 0, merges += n > 1;
      bucket = bucket_of(float(cost_of(p, t.num_rows, split.longest)));
    }
    add_to_bucket<false>(bucket, n, 0);
  });
  slots = add_warp(slots);
  if constexpr (K.many) merges = add_warp(merges);
  if (warp_lane() == 0 && slots > 0) {
    atomic_add(&shared().num_slots, slots);
    if constexpr (K.many) atomic_add(&shared().num_merges, merges);
  }
  sync_ctas<K>();
}

template <Key K>
__device__ __forceinline__ void count_all_pieces(const Params& p, const Tiles<K>& tiles, float limit, Split& only) {
#pragma unroll 1
  for (bool rationed = false;; rationed = true) {
    count_pieces(p, tiles, limit, only);
    if (rationed || warp_share_of<K>(&shared().num_slots).total <= uint32_t(shared().max_slots)) break;
    ration_slots(p, tiles, limit);
  }
}

// Counts become the first places of the buckets' records.
template <Key K>
__device__ __forceinline__ void place_buckets() {
  Shared& s = shared();
  const uint32_t slots = warp_share_of<K>(&s.num_slots).before, merges = warp_share_of<K>(&s.num_merges).before;
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
  uint32_t through = same ? n : 0;
#pragma unroll
  for (int32_t d = 1; d < 32; d *= 2) {
    const uint32_t other = shuffle_up(through, d);
    if (lane >= d) through += other;
  }
  const uint32_t sum = shuffle_from(through, 31);
  uint32_t at = 0;
  if (lane == leader) at = atomic_add_local(counter, sum);
  at = shuffle_from(at, leader) + through - n;
  if (counter != nullptr && !same) at = atomic_add_local(counter, n);
  return at;
}

__device__ __forceinline__ void write_record(const Params& p, uint32_t at, const Tile& t, int32_t begin, int32_t end,
                                             int32_t split_len, int32_t slot) {
  if (at >= uint32_t(p.max_records)) return;
  struct Words {
    Bits<16> part[3];
  };
  const batch_attention::Record record{{t.request_idx, 0, 1, t.row_begin, t.num_rows, begin, end, split_len, slot},
                                       {t.request.qo_begin, t.request.qo_len, t.request.kv_len}};
  static_assert(sizeof record == sizeof(Words));
  const Words words = bit_cast<Words>(record);
  char* to = p.workspace + batch_attention::kRecords + int64_t(at) * int64_t(sizeof record);
#pragma unroll
  for (int32_t i = 0; i < 3; ++i) store_stream<16>(to + 16 * i, words.part[i]);
}

__device__ __forceinline__ void write_whole(const Params& p, const Tile& t, uint32_t at) {
  const int32_t step = p.fixed_split_len > 0 ? fixed_step(p, t.request.kv_len) : 0;
  write_record(p, at, t, t.begin, t.end, step > 0 && t.num_splits(step) > 1 ? step : 0, -1);
}

// A tile that is split.
struct SplitTile {
  Tile tile;
  Split split;
  int32_t at, slot, merge;
  int32_t start;  // of the first piece, before it is cut off at the tile's first key
};

__device__ __forceinline__ void write_piece(const Params& p, const SplitTile& s, int32_t i) {
  const Tile& t = s.tile;
  const Split& split = s.split;
  if (s.slot + split.num_pieces > shared().max_slots || s.merge >= p.max_merges) return;  // count_pieces made sure
  if (i == 0)
    reinterpret_cast<PlanMerge*>(p.workspace + p.head.merges)[s.merge] = {
        t.request_idx, 0, 1, t.row_begin, t.num_rows, s.slot, split.num_pieces};
  const int64_t begin = s.start + int64_t(i) * split.step, end = begin + split.step;
  write_record(p, uint32_t(s.at + i), t, int32_t(i == 0 ? t.begin : begin), int32_t(end < t.end ? end : t.end), 0,
               s.slot + i);
  reinterpret_cast<int32_t*>(p.workspace + p.head.merge_of_slot)[s.slot + i] = s.merge;
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
  uint32_t through = n;
#pragma unroll
  for (int32_t d = 1; d < 32; d *= 2) {
    const uint32_t other = shuffle_up(through, d);
    if (warp_lane() >= d) through += other;
  }
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
__device__ __forceinline__ void write_records(const Params& p, const Tiles<K>& tiles, float limit, const Split& only) {
  Shared& s = shared();
  tiles.for_passes([&](int32_t first) {
    const bool mine = tiles.is_mine(first);
    SplitTile own{};
    own.split.num_pieces = 1;
    uint32_t* bucket = nullptr;
    if (mine) own.tile = tiles.get(first);
    if (K.many)
      own.split = split_by<K>(p, own.tile, mine, limit);
    else if (mine)
      own.split = only;
    if (mine) bucket = &s.count[bucket_of(float(cost_of(p, own.tile.num_rows, own.split.longest)))];
    const uint32_t n = uint32_t(own.split.num_pieces);
    own.at = int32_t(take(bucket, n));
    if (mine && n == 1) write_whole(p, own.tile, uint32_t(own.at));
    if (ballot(n > 1) == 0) return;
    const uint32_t places = take(n > 1 ? &s.num_slots : nullptr, (1u << 16) + n);  // merges above slots
    own.slot = int32_t(places & 0xffff), own.merge = int32_t(places >> 16);
    if (n > 1) own.start = own.tile.begin - own.tile.begin % own.split.step;
    write_pieces(p, own, n > 1 ? n : 0);
  });
}

template <Key K>
__device__ __forceinline__ void list_pieces(const Params& p, const Tiles<K>& tiles, float limit, bool is_split) {
  Split only{0, 1, 0};
  if (is_split)
    count_all_pieces(p, tiles, limit, only);
  else if (tiles.is_mine(0))  // pieces are the tiles, which have been counted
    only.longest = tiles.get(0).end - tiles.get(0).begin;
  place_buckets<K>();
  write_records(p, tiles, limit, only);
}

// Tiles of one bucket that are not split: as they are.
template <Key K>
__device__ __forceinline__ void list_tiles(const Params& p, const Tiles<K>& tiles) {
  if (tiles.is_mine(0)) write_whole(p, tiles.get(0), threadIdx.x);
  if (threadIdx.x == 0) shared().num_records = uint32_t(tiles.count());
}

// Before anything is listed: no arrivals yet, and no garbage where a worker reads its first record before it knows
// whether there is one.
template <Key K>
__device__ __forceinline__ void clear(const Params& p) {
  const int32_t first = cta_rank<K>() * K.threads + int32_t(threadIdx.x), step = num_ctas<K>() * K.threads;
  uint32_t* arrivals = reinterpret_cast<uint32_t*>(p.workspace + p.head.arrivals);
#pragma unroll 1
  for (int32_t i = first; i < p.max_merges * p.num_kv_heads; i += step) arrivals[i] = 0;
  constexpr int32_t kParts = int32_t(sizeof(batch_attention::Record)) / 16;
  char* records = p.workspace + batch_attention::kRecords;
#pragma unroll 1
  for (int32_t i = first; i * p.num_kv_heads < p.num_workers * kParts; i += step)
    store_stream<16>(records + 16 * int64_t(i), Bits<16>{});
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  wait_for_predecessor();
  allow_successor();
  if (!K.many && blockIdx.x > 0) return fetch_ahead<K>(p);
  clear<K>(p);
  const Tiles<K> tiles(p, p.batch_size > 0 ? read_requests<K>(p) : 0);
  const float limit = choose_limit<K>(p, collect_costs(p, tiles));
  const bool is_split = K.many || limit < kNoLimit;
  if (!is_split && shared().num_used <= 1)
    list_tiles(p, tiles);
  else
    list_pieces(p, tiles, limit, is_split);
  if (cta_rank<K>() != 0 || threadIdx.x != 0) return;
  batch_attention::PlanOnDevice head = p.head;
  head.num_items = int32_t(math::min(shared().num_records, uint32_t(p.max_records))) * p.num_kv_heads;
  head.num_workers = p.num_workers;
  head.next = head.finished = 0;
  head.slot_rows = shared().slot_rows, head.slots_per_head = shared().max_slots;
  *reinterpret_cast<batch_attention::PlanOnDevice*>(p.workspace) = head;
}

}  // namespace fulmen::cuda::attention_prepare
