// SPDX-License-Identifier: Apache-2.0
// Where to split tiles: each warp takes one limit for the cost of a piece, estimates when the last worker would finish,
// and the best limit wins. Estimates are made of the tiles' costs by bucket, in a fixed order: the same lengths give
// the same splits, hence the same bits.
#pragma once
#include <fulmen/cuda/attention/prepare_tiles.cuh>
#include <fulmen/cuda/ptx/math.cuh>

namespace fulmen::cuda::attention_prepare {

inline constexpr float kNoLimit = 3e38f;

// Adds n and cost to a bucket, -1 for none; all lanes call. Lanes of the first one's bucket go together.
__device__ __forceinline__ void add_to_bucket(int32_t bucket, uint32_t n, float cost) {
  const uint32_t members = ballot(bucket >= 0);
  if (members == 0) return;
  const int32_t leader = first_bit(members), shared_bucket = shuffle_from(bucket, leader);
  const bool same = bucket == shared_bucket;
  const uint32_t bits = bit_cast<uint32_t>(cost), sum = add_warp(same ? n : 0u), most = max_warp(same ? bits : 0u);
  Shared& s = shared();
  if (warp_lane() == leader) {
    atomic_add(&s.count[bucket], sum);
    atomic_max(&s.top[bucket], most);
  }
  if (bucket < 0 || same) return;
  atomic_add(&s.count[bucket], n);
  atomic_max(&s.top[bucket], bits);
}

__device__ __forceinline__ void clear_buckets() {
  Shared& s = shared();
  for (int32_t i = int32_t(threadIdx.x); i < kBuckets; i += kThreads) s.count[i] = s.top[i] = 0;
  if (threadIdx.x == 0) s.max_rows = s.num_slots = s.num_records = 0;
  sync_cta();
}

// Every tile into its bucket. Returns the sum of all costs.
__device__ __forceinline__ uint64_t collect_costs(const Params& p, const Tiles& tiles) {
  Shared& s = shared();
  clear_buckets();
  uint64_t total = 0;
  uint32_t max_rows = 0;
  for (int32_t first = 0; first < tiles.count; first += kThreads) {
    int32_t bucket = -1;
    float cost = 0;
    if (tiles.is_mine(first)) {
      const Tile t = tiles.get(first);
      const uint64_t exact = cost_of(p, t.num_rows, t.end - t.begin);
      total += exact, cost = float(exact), bucket = bucket_of(cost);
      max_rows = math::max(max_rows, uint32_t(t.num_rows));
    }
    add_to_bucket(bucket, 1, cost);
  }
  total = add_warp(total), max_rows = max_warp(max_rows);
  if (warp_lane() == 0) s.warp_totals[warp_index()] = total, atomic_max(&s.max_rows, max_rows);
  sync_cta();
  return add_warp(s.warp_totals[warp_lane()]);
}

// Buckets that are not empty, in order. Returns their number.
__device__ __forceinline__ int32_t list_buckets() {
  Shared& s = shared();
  const int32_t i = int32_t(threadIdx.x);
  const bool is_used = i < kBuckets && s.count[i] > 0;
  const uint32_t word = ballot(is_used);
  if (warp_lane() == 0) s.warp_sums[warp_index()] = word;
  sync_cta();
  const uint32_t own = uint32_t(num_bits(s.warp_sums[warp_lane()]));
  const uint32_t before = add_warp(warp_lane() < warp_index() ? own : 0u);
  if (is_used) s.used[before + uint32_t(num_bits(word & ((1u << warp_lane()) - 1)))] = i;
  sync_cta();
  return int32_t(add_warp(own));
}

// To a few places: these are estimates.
__device__ __forceinline__ float over(float a, float b) { return a * reciprocal(b); }

// Pieces of a tile of this cost where none may cost more than limit.
__device__ __forceinline__ float pieces_of(const Params& p, float cost, float unit, float limit) {
  if (cost <= limit) return 1;
  const float num_keys = over(cost, unit) - kItemOverhead;
  if (p.fixed_split_len > 0) {
    float splits = ceilf(over(num_keys, float(p.fixed_split_len)));
    while (splits > kMaxSplits) splits = ceilf(splits / 2);
    return fmaxf(splits, 1);
  }
  return fmaxf(1, fminf(ceilf(over(cost, limit)), floorf(over(num_keys, float(p.min_split_len)))));
}

__device__ __forceinline__ float sum_through(float x) {  // of this lane and those below
#pragma unroll
  for (int32_t d = 1; d < 32; d *= 2) {
    const float other = shuffle_up(x, d);
    if (warp_lane() >= d) x += other;
  }
  return x;
}

// When the last worker finishes, if items start in order as workers get free: an item starts no later than the work
// before it, shared by all; nor does it all take more than full rounds of the longest item.
__device__ __forceinline__ float finish_with(const Params& p, int32_t num_used, float unit, float limit) {
  const Shared& s = shared();
  const float overhead = kItemOverhead * unit, workers = float(p.num_workers), share = reciprocal(workers);
  float work = 0, items = 0, longest = 0, latest = 0, slots = 0;
  for (int32_t first = 0; first < num_used; first += 32) {
    const int32_t i = first + warp_lane();
    float n = 0, piece = 0, own_slots = 0;
    if (i < num_used) {
      const int32_t bucket = s.used[i];
      const float cost = bit_cast<float>(s.top[bucket]), pieces = pieces_of(p, cost, unit, limit);
      n = float(s.count[bucket]) * pieces;
      own_slots = pieces > 1 ? n : 0;
      n *= float(p.num_kv_heads);
      piece = over(cost - overhead, pieces) + overhead;
    }
    const float through = work + sum_through(n * piece), count = items + sum_through(n);
    if (n > 0) {
      longest = fmaxf(longest, piece);
      latest = fmaxf(latest, count > workers ? (through - piece) * share + piece : piece);
    }
    work = shuffle_from(through, 31), items = shuffle_from(count, 31);
    slots += float(add_warp(uint32_t(own_slots)));
  }
  longest = bit_cast<float>(max_warp(bit_cast<uint32_t>(longest)));
  latest = bit_cast<float>(max_warp(bit_cast<uint32_t>(latest)));
  if (slots > float(p.max_slots)) return kNoLimit;
  return fmaxf(work * share, fminf(latest, ceilf(items * share - 1e-4f) * longest));
}

// The limit that a warp tries: none, shares of the longest tile, shares of what each worker has to do.
__device__ __forceinline__ float candidate(int32_t i, float longest, float ideal) {
  if (i == 0) return kNoLimit;
  if (i <= 16) return over(longest, float(i + 1)) * 1.0001f;
  return ideal * math::exp2(1 - float(i - 17) * 0.25f);
}

// The best limit. total: of all tiles' costs.
__device__ __forceinline__ float choose_limit(const Params& p, uint64_t total) {
  Shared& s = shared();
  const int32_t num_used = list_buckets();
  if (num_used == 0 || p.disable_split || p.max_slots < 2) return kNoLimit;
  const float longest = bit_cast<float>(s.top[s.used[0]]), unit = float(unit_cost(p, int32_t(s.max_rows)));
  const float ideal = over(float(total) * float(p.num_kv_heads), float(p.num_workers));
  const float limit = candidate(warp_index(), longest, ideal);
  float finish = finish_with(p, num_used, unit, limit);
  if (warp_index() == 0) finish *= 1 - 1.f / 64;  // a split must earn its merge
  if (warp_lane() == 0) s.estimates[warp_index()] = finish, s.limits[warp_index()] = limit;
  sync_cta();
  const uint32_t bits = bit_cast<uint32_t>(s.estimates[warp_lane()]), least = ~max_warp(~bits);
  return s.limits[first_bit(ballot(bits == least))];
}

struct Split {
  int32_t step = 0, num_pieces = 1;  // step 0: not split
  int32_t longest;                   // keys
};

__device__ __forceinline__ Split split_of(const Params& p, const Tile& t, float limit) {
  const int32_t num_keys = t.end - t.begin;
  Split s{0, 1, num_keys};
  const float cost = float(cost_of(p, t.num_rows, num_keys));
  if (cost <= limit) return s;
  int32_t step = 0;
  if (p.fixed_split_len > 0) {
    step = fixed_step(p, t.request.kv_len);
  } else {
    const int32_t most = math::max(1, num_keys / p.min_split_len);
    const int32_t pieces = int32_t(fminf(float(most), ceilf(cost / limit)));
    step = math::max(1, ceil_div(ceil_div(num_keys, pieces), p.tile_kv) * p.tile_kv);
  }
  const int32_t num_pieces = t.num_splits(step);
  if (num_pieces >= 2) s = {step, num_pieces, step};
  return s;
}

}  // namespace fulmen::cuda::attention_prepare
