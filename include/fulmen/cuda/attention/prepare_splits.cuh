// SPDX-License-Identifier: Apache-2.0
// Any number of tiles, in passes: their costs by bucket, and which of them are split where slots do not suffice.
#pragma once
#include <fulmen/cuda/attention/prepare_limit.cuh>

namespace fulmen::cuda::attention_prepare {

// Adds n, and cost where kCosts, to a bucket, -1 for none; all lanes call. Lanes of the first one's bucket go
// together.
template <bool kCosts>
__device__ __forceinline__ void add_to_bucket(int32_t bucket, uint32_t n, float cost) {
  const uint32_t members = ballot(bucket >= 0);
  if (members == 0) return;
  const int32_t leader = first_bit(members), shared_bucket = shuffle_from(bucket, leader);
  const bool same = bucket == shared_bucket;
  const uint32_t bits = bit_cast<uint32_t>(cost), sum = add_warp(same ? n : 0u);
  const uint32_t most = kCosts ? max_warp(same ? bits : 0u) : 0;
  Shared& s = shared();
  if (warp_lane() == leader) {
    atomic_add(&s.count[bucket], sum);
    if (kCosts) atomic_max(&s.top[bucket], most);
  }
  if (bucket < 0 || same) return;
  atomic_add(&s.count[bucket], n);
  if (kCosts) atomic_max(&s.top[bucket], bits);
}

template <Key K>
__device__ __forceinline__ void clear_buckets() {
  Shared& s = shared();
  for (int32_t i = int32_t(threadIdx.x); i < kBuckets; i += K.threads) s.count[i] = s.top[i] = 0;
  if (threadIdx.x == 0) s.max_rows = s.num_slots = s.num_merges = s.slots_taken = 0;
  sync_cta();
}

// Buckets and the sum of all costs, over the cluster.
template <Key K>
__device__ __forceinline__ uint64_t share_costs(uint64_t total) {
  Shared& s = shared();
  if (threadIdx.x == 0) s.total[0] = uint32_t(total), s.total[1] = uint32_t(total >> 32);
  sync_cluster();
  constexpr int32_t kPer = kBuckets > K.threads ? kBuckets / K.threads : 1;
  const int32_t i = int32_t(threadIdx.x) * kPer;
  uint32_t count[kPer] = {}, top[kPer] = {};
#pragma unroll
  for (int32_t k = 0; k < kPer; ++k) {
    if (i >= kBuckets) break;
    count[k] = share_of(&s.count[i + k]).total;
#pragma unroll 4
    for (int32_t rank = 0; rank < num_ctas(); ++rank)
      top[k] = math::max(top[k], load_remote(&s.top[i + k], uint32_t(rank)));
  }
  const uint32_t rows = max_warp(of_each_cta(&s.max_rows));
  total = add_warp(uint64_t(of_each_cta(&s.total[1])) << 32 | of_each_cta(&s.total[0]));
  sync_cluster();
#pragma unroll
  for (int32_t k = 0; k < kPer; ++k)
    if (i < kBuckets) s.count[i + k] = count[k], s.top[i + k] = top[k];
  if (threadIdx.x == 0) s.max_rows = rows;
  sync_cta();
  return total;
}

// Every tile into its bucket. Returns the sum of all costs.
template <Key K>
__device__ __forceinline__ uint64_t collect_costs(const Params& p, const Tiles<K>& tiles) {
  Shared& s = shared();
  clear_buckets<K>();
  uint64_t total = 0;
  uint32_t max_rows = 0;
  tiles.for_passes([&](int32_t first) {
    int32_t bucket = -1;
    float cost = 0;
    if (tiles.is_mine(first)) {
      const Tile t = tiles.get(first);
      cost = cost_of(p, t.num_rows, t.end - t.begin);
      total += uint64_t(cost), bucket = bucket_of(cost);
      max_rows = math::max(max_rows, uint32_t(t.num_rows));
    }
    add_to_bucket<true>(bucket, 1, cost);
  });
  total = add_warp(total), max_rows = max_warp(max_rows);
  if (warp_lane() == 0) s.warp_totals[warp_index()] = total, atomic_max(&s.max_rows, max_rows);
  sync_cta();
  total = add_warp(warp_lane() < K.threads / 32 ? s.warp_totals[warp_lane()] : 0);
  total = share_costs<K>(total);
  if (threadIdx.x == 0) {  // read after list_buckets
    s.last_bucket = kBuckets;
    s.slot_rows = math::max(1, int32_t(s.max_rows));
    s.max_slots = math::min(p.max_slots, int32_t(uint32_t(p.slot_room) / uint32_t(s.slot_rows)));
  }
  return total;
}

// Buckets that are not empty, in order. Returns their number.
template <Key K>
__device__ __forceinline__ int32_t list_buckets() {
  constexpr int32_t kWords = kBuckets / 32, kNumWarps = K.threads / 32;
  Shared& s = shared();
#pragma unroll
  for (int32_t i = warp_index(); i < kWords; i += kNumWarps) {
    const uint32_t word = ballot(s.count[i * 32 + warp_lane()] > 0);
    if (warp_lane() == 0) s.warp_sums[i] = word;
  }
  sync_cta();
  const uint32_t own = warp_lane() < kWords ? uint32_t(num_bits(s.warp_sums[warp_lane()])) : 0;
#pragma unroll
  for (int32_t i = warp_index(); i < kWords; i += kNumWarps) {
    const uint32_t word = s.warp_sums[i], before = add_warp(warp_lane() < i ? own : 0u);
    if ((word >> warp_lane()) % 2 != 0)
      s.used[0][before + uint32_t(num_bits(word & ((1u << warp_lane()) - 1)))] = uint16_t(i * 32 + warp_lane());
  }
  const int32_t num_used = int32_t(add_warp(own));
  if (threadIdx.x == 0) s.num_used = num_used;
  sync_cta();
  return num_used;
}

// Of the buckets' tiles. total: of all costs.
template <Key K>
__device__ __forceinline__ float choose_limit(const Params& p, uint64_t total) {
  const Shared& s = shared();
  const int32_t num_used = list_buckets<K>();
  if (num_used == 0 || p.disable_split || p.max_slots < 2) return kNoLimit;
  estimate_all<K>(p, {s.used[0], num_used, s.max_slots, int32_t(s.max_rows), float(total)});
  sync_cta();
  return best_limit();
}

// f(bucket, sum of the counts before it, its own count), each bucket by one thread. Returns the sum of all. Counts may
// be written from f on.
template <Key K, class F>
__device__ __forceinline__ uint32_t for_sums_before(F f) {
  constexpr int32_t kPer = kBuckets > K.threads ? kBuckets / K.threads : 1;
  Shared& s = shared();
  const int32_t first = int32_t(threadIdx.x) * kPer;
  Share own[kPer];
  uint32_t sum = 0, total = 0;
#pragma unroll
  for (int32_t i = 0; i < kPer; ++i)
    if (first < kBuckets) own[i] = share_of(&s.count[first + i]), sum += own[i].total;
  uint32_t before = sum_before<K>(sum, &total);
  sync_cluster();
  if (first >= kBuckets) return total;
#pragma unroll
  for (int32_t i = 0; i < kPer; ++i) f(first + i, before, own[i]), before += own[i].total;
  return total;
}

// More slots are wanted than there are: of the tiles that cost more than the limit those of all buckets before
// last_bucket are split, and of that one the first that share last_slots. In shared memory, as registers are short.
template <Key K>
__device__ __forceinline__ void ration_slots(const Params& p, const Tiles<K>& tiles, float limit) {
  Shared& s = shared();
  sync_cluster();  // all have seen that
  clear_buckets<K>();
  tiles.for_passes([&](int32_t first) {
    int32_t bucket = -1;
    uint32_t n = 1;
    if (tiles.is_mine(first)) {
      const Tile t = tiles.get(first);
      n = uint32_t(split_of(p, t, limit).num_pieces);
      if (n > 1) bucket = whole_bucket(p, t);
    }
    add_to_bucket<false>(bucket, n, 0);
  });
  sync_cluster();
  const uint32_t most = uint32_t(s.max_slots);
  for_sums_before<K>([&](int32_t bucket, uint32_t before, const Share& own) {
    if (before > most || before + own.total <= most) return;
    const uint32_t left = most - before;  // those of the CTAs before this one come first
    s.last_bucket = bucket, s.last_slots = left > own.before ? left - own.before : 0;
  });
  sync_cta();
}

// A tile's split. All threads call, `mine`: with a tile.
template <Key K>
__device__ __forceinline__ Split split_by(const Params& p, const Tile& t, bool mine, float limit) {
  Shared& shares = shared();
  Split s{0, 1, 0};
  if (mine) s = split_of(p, t, limit);
  if (shares.last_bucket == kBuckets) return s;
  const int32_t bucket = s.num_pieces > 1 ? whole_bucket(p, t) : -1;
  const uint32_t n = bucket == shares.last_bucket ? uint32_t(s.num_pieces) : 0, taken = shares.slots_taken;
  uint32_t total = 0;
  const uint32_t through = taken + sum_before<K>(n, &total) + n;
  if (threadIdx.x == 0) shares.slots_taken = taken + total;
  sync_cta();
  if (bucket > shares.last_bucket || (n > 0 && through > shares.last_slots)) s = {0, 1, t.end - t.begin};
  return s;
}

}  // namespace fulmen::cuda::attention_prepare
