// SPDX-License-Identifier: Apache-2.0
// Plans attention on the device, in one CTA:
//
//   index tensors -> requests -> tiles -> costs by bucket -> limit of a piece -> records by bucket, longest first
//
// Records within a bucket, and slots, are taken in any order; nothing that is computed later depends on it. Launched by
// src/cuda/attention_prepare.cc.
#pragma once
#include <fulmen/cuda/attention/prepare_splits.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::attention_prepare {

using attention::PlanItem, attention::PlanMerge, attention::PlanRequest;

// Counts slots, and records by the cost of a tile's longest piece. only: the split of a thread's only tile.
__device__ __forceinline__ void count_pieces(const Params& p, const Tiles& tiles, float limit, Split& only) {
  clear_buckets();
  uint32_t slots = 0;
  for (int32_t first = 0; first < tiles.count; first += kThreads) {
    int32_t bucket = -1;
    uint32_t n = 0;
    Tile t{};
    const bool mine = tiles.is_mine(first);
    if (mine) t = tiles.get(first);
    const Split split = split_by(p, t, mine, limit);
    if (mine) {
      if (tiles.count <= kThreads) only = split;
      n = uint32_t(split.num_pieces);
      slots += n > 1 ? n : 0;
      bucket = bucket_of(float(cost_of(p, t.num_rows, split.longest)));
    }
    add_to_bucket<false>(bucket, n, 0);
  }
  slots = add_warp(slots);
  if (warp_lane() == 0 && slots > 0) atomic_add(&shared().num_slots, slots);
  sync_cta();
}

// Counts become the first places of the buckets' records.
__device__ __forceinline__ void place_buckets() {
  Shared& s = shared();
  const int32_t i = int32_t(threadIdx.x);
  uint32_t total = 0;
  const uint32_t at = sum_before(i < kBuckets ? s.count[i] : 0, &total);
  if (i < kBuckets) s.count[i] = at;
  if (i == 0) s.num_records = total, s.num_slots = s.slots_taken = 0;
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

// A tile that is split, its records by some lanes.
struct SplitTile {
  Tile tile;
  Split split;
  int32_t at, slot, merge;
};

__device__ __forceinline__ void write_pieces(const Params& p, const SplitTile& s, int32_t lane, int32_t num_lanes) {
  const Tile& t = s.tile;
  const Split& split = s.split;
  if (s.slot + split.num_pieces > shared().max_slots || s.merge >= p.max_merges) return;  // count_pieces made sure
  if (lane == 0)
    reinterpret_cast<PlanMerge*>(p.workspace + p.head.merges)[s.merge] = {
        t.request_idx, 0, 1, t.row_begin, t.num_rows, s.slot, split.num_pieces};
  int32_t* merge_of_slot = reinterpret_cast<int32_t*>(p.workspace + p.head.merge_of_slot);
  const int64_t start = t.begin - t.begin % split.step;
  for (int32_t i = lane; i < split.num_pieces; i += num_lanes) {
    const int64_t begin = start + int64_t(i) * split.step, end = begin + split.step;
    write_record(p, uint32_t(s.at + i), t, int32_t(i == 0 ? t.begin : begin), int32_t(end < t.end ? end : t.end), 0,
                 s.slot + i);
    merge_of_slot[s.slot + i] = s.merge;
  }
}

// The same struct of another lane.
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

__device__ __forceinline__ void write_records(const Params& p, const Tiles& tiles, float limit, const Split& only) {
  Shared& s = shared();
  for (int32_t first = 0; first < tiles.count; first += kThreads) {
    const bool mine = tiles.is_mine(first);
    SplitTile own{};
    own.split.num_pieces = 1;
    uint32_t* bucket = nullptr;
    if (mine) own.tile = tiles.get(first);
    if (tiles.count > kThreads)
      own.split = split_by(p, own.tile, mine, limit);
    else if (mine)
      own.split = only;
    if (mine) bucket = &s.count[bucket_of(float(cost_of(p, own.tile.num_rows, own.split.longest)))];
    const uint32_t n = uint32_t(own.split.num_pieces);
    own.at = int32_t(take(bucket, n));
    if (mine && n == 1) write_whole(p, own.tile, uint32_t(own.at));
    uint32_t splits = ballot(n > 1);
    if (splits == 0) continue;
    const uint32_t places = take(n > 1 ? &s.num_slots : nullptr, (1u << 16) + n);  // merges above slots
    own.slot = int32_t(places & 0xffff), own.merge = int32_t(places >> 16);
    constexpr uint32_t kFew = 8;  // that a lane writes alone
    if (n > 1 && n <= kFew) write_pieces(p, own, 0, 1);
    for (splits = ballot(n > kFew); splits != 0; splits &= splits - 1)
      write_pieces(p, of_lane(own, first_bit(splits)), warp_lane(), 32);
  }
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  static_assert(K.threads == kThreads);
  wait_for_predecessor();
  allow_successor();
  uint32_t* arrivals = reinterpret_cast<uint32_t*>(p.workspace + p.head.arrivals);
  for (int32_t i = int32_t(threadIdx.x); i < p.max_merges * p.num_kv_heads; i += kThreads) arrivals[i] = 0;
  const Tiles tiles(p, p.batch_size > 0 ? read_requests(p) : 0);
  const float limit = choose_limit(p, collect_costs(p, tiles));
  Split only{0, 1, 0};
  count_pieces(p, tiles, limit, only);
  if (shared().num_slots > uint32_t(shared().max_slots)) {
    ration_slots(p, tiles, limit);
    count_pieces(p, tiles, limit, only);
  }
  place_buckets();
  write_records(p, tiles, limit, only);
  if (threadIdx.x != 0) return;
  batch_attention::PlanOnDevice head = p.head;
  head.num_items = int32_t(math::min(shared().num_records, uint32_t(p.max_records))) * p.num_kv_heads;
  head.num_workers = p.num_workers;
  head.next = head.finished = 0;
  head.slot_rows = shared().slot_rows, head.slots_per_head = shared().max_slots;
  *reinterpret_cast<batch_attention::PlanOnDevice*>(p.workspace) = head;
}

}  // namespace fulmen::cuda::attention_prepare
