// SPDX-License-Identifier: Apache-2.0
// Where to split tiles: some lanes take one limit for the cost of a piece, estimate when the last worker would finish,
// and the best limit wins. Estimates are made of the tiles' costs by bucket, in a fixed order: the same lengths give
// the same splits, hence the same bits.
#pragma once
#include <fulmen/cuda/attention/prepare_tiles.cuh>
#include <fulmen/cuda/ptx/math.cuh>

namespace fulmen::cuda::attention_prepare {

inline constexpr float kNoLimit = 3e38f;

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
  static_assert(K.threads >= kBuckets);
  Shared& s = shared();
  if (threadIdx.x == 0) s.total[0] = uint32_t(total), s.total[1] = uint32_t(total >> 32);
  sync_ctas<K>();
  const int32_t i = int32_t(threadIdx.x);
  uint32_t count = 0, top = 0;
  if (i < kBuckets) {
    count = share_of<K>(&s.count[i]).total;
#pragma unroll 4
    for (int32_t rank = 0; rank < num_ctas<K>(); ++rank) top = math::max(top, load_remote(&s.top[i], uint32_t(rank)));
  }
  const uint32_t rows = max_warp(of_each_cta<K>(&s.max_rows));
  total = add_warp(uint64_t(of_each_cta<K>(&s.total[1])) << 32 | of_each_cta<K>(&s.total[0]));
  sync_ctas<K>();
  if (i < kBuckets) s.count[i] = count, s.top[i] = top;
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
      const uint64_t exact = cost_of(p, t.num_rows, t.end - t.begin);
      total += exact, cost = float(exact), bucket = bucket_of(cost);
      max_rows = math::max(max_rows, uint32_t(t.num_rows));
    }
    add_to_bucket<true>(bucket, 1, cost);
  });
  total = add_warp(total), max_rows = max_warp(max_rows);
  if (warp_lane() == 0) s.warp_totals[warp_index()] = total, atomic_max(&s.max_rows, max_rows);
  sync_cta();
  total = add_warp(warp_lane() < K.threads / 32 ? s.warp_totals[warp_lane()] : 0);
  if constexpr (K.many) total = share_costs<K>(total);
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
      s.used[before + uint32_t(num_bits(word & ((1u << warp_lane()) - 1)))] = i * 32 + warp_lane();
  }
  const int32_t num_used = int32_t(add_warp(own));
  if (threadIdx.x == 0) s.num_used = num_used;
  sync_cta();
  return num_used;
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

// Lanes that try the same limit.
template <Key K>
struct Team {
  static constexpr int32_t kLanes = K.threads / kCandidates;
  static_assert(kLanes <= 32);
  __device__ __forceinline__ static int32_t lane() { return warp_lane() % kLanes; }
  __device__ __forceinline__ static float last(float x) {
    return shuffle_from(x, warp_lane() / kLanes * kLanes + kLanes - 1);
  }
  __device__ __forceinline__ static float sum_through(float x) {  // of this lane and those below
#pragma unroll
    for (int32_t d = 1; d < kLanes; d *= 2) {
      const float other = shuffle_up(x, d);
      if (lane() >= d) x += other;
    }
    return x;
  }
  __device__ __forceinline__ static float max(float x) {
#pragma unroll
    for (int32_t mask = kLanes / 2; mask > 0; mask /= 2) x = fmaxf(x, shuffle_xor(x, mask));
    return x;
  }
};

// A bucket's tiles, as a limit would have them.
struct Cut {
  float whole = 0, split = 0;  // tiles
  float pieces = 1, cost = 0, piece = 0;
};
// bucket: each lane's, -1 for none. slots: taken by buckets before the first lane's, then by all lanes' as well. Where
// they run out, the rest of a bucket and all that follow stay whole.
template <Key K>
__device__ __forceinline__ Cut cut_buckets(const Params& p, int32_t bucket, float unit, float limit, float& slots) {
  const Shared& s = shared();
  Cut c;
  if (bucket >= 0) {
    const float overhead = kItemOverhead * unit;
    c.whole = float(s.count[bucket]), c.cost = bit_cast<float>(s.top[bucket]);
    c.pieces = pieces_of(p, c.cost, unit, limit);
    c.piece = over(c.cost - overhead, c.pieces) + overhead;
  }
  const float wanted = c.pieces > 1 ? c.whole * c.pieces : 0, through = slots + Team<K>::sum_through(wanted);
  const float left = fmaxf(0, float(s.max_slots) - (through - wanted));
  slots = Team<K>::last(through);
  if (wanted <= left)
    c.split = wanted > 0 ? c.whole : 0;
  else
    c.split = floorf(over(left, c.pieces));
  c.whole -= c.split;
  return c;
}

// When the last worker finishes, if items start in order as workers get free: an item starts no later than the work
// before it, shared by all; nor does it all take more than full rounds of the longest item.
template <Key K>
__device__ __forceinline__ float finish_with(const Params& p, int32_t num_used, float unit, float limit) {
  const float workers = float(p.num_workers), share = reciprocal(workers), heads = float(p.num_kv_heads);
  float work = 0, items = 0, longest = 0, latest = 0, slots = 0;
  const auto finish = [&](float n, float through, float count, float cost) {  // of the last of n items of one cost
    if (n <= 0) return;
    longest = fmaxf(longest, cost);
    latest = fmaxf(latest, count > workers ? (through - cost) * share + cost : cost);
  };
  for (int32_t first = 0; first < num_used; first += Team<K>::kLanes) {
    const int32_t i = first + Team<K>::lane();
    const Cut c = cut_buckets<K>(p, i < num_used ? shared().used[i] : -1, unit, limit, slots);
    const float whole = c.whole * heads, split = c.split * c.pieces * heads;
    const float through = work + Team<K>::sum_through(whole * c.cost + split * c.piece);
    const float count = items + Team<K>::sum_through(whole + split);
    finish(whole, through - split * c.piece, count - split, c.cost);
    finish(split, through, count, c.piece);
    work = Team<K>::last(through), items = Team<K>::last(count);
  }
  longest = Team<K>::max(longest), latest = Team<K>::max(latest);
  return fmaxf(work * share, fminf(latest, ceilf(items * share - 1e-4f) * longest));
}

// The limit that a team tries: none, shares of the longest tile, shares of what each worker has to do.
__device__ __forceinline__ float candidate(int32_t i, float longest, float ideal) {
  if (i == 0) return kNoLimit;
  if (i <= 16) return over(longest, float(i + 1)) * 1.0001f;
  return ideal * math::exp2(1 - float(i - 17) * 0.25f);
}

// The best limit. total: of all tiles' costs.
template <Key K>
__device__ __forceinline__ float choose_limit(const Params& p, uint64_t total) {
  Shared& s = shared();
  const int32_t num_used = list_buckets<K>();
  if (num_used == 0 || p.disable_split || p.max_slots < 2) return kNoLimit;
  const float longest = bit_cast<float>(s.top[s.used[0]]), unit = float(unit_cost(p, int32_t(s.max_rows)));
  const float ideal = over(float(total) * float(p.num_kv_heads), float(p.num_workers));
  const int32_t team = int32_t(threadIdx.x) / Team<K>::kLanes;
  const float limit = candidate(team, longest, ideal);
  float finish = finish_with<K>(p, num_used, unit, limit);
  if (team == 0) finish *= 1 - 1.f / 64;  // a split must earn its merge
  if (Team<K>::lane() == 0) s.estimates[team] = finish, s.limits[team] = limit;
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
    const int32_t pieces = int32_t(fminf(float(most), ceilf(over(cost, limit))));
    step = math::max(1, ceil_div(ceil_div(num_keys, pieces), p.tile_kv) * p.tile_kv);
  }
  const int32_t num_pieces = t.num_splits(step);
  if (num_pieces >= 2) s = {step, num_pieces, step};
  return s;
}

__device__ __forceinline__ int32_t whole_bucket(const Params& p, const Tile& t) {
  return bucket_of(float(cost_of(p, t.num_rows, t.end - t.begin)));
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
    if (first < kBuckets) own[i] = share_of<K>(&s.count[first + i]), sum += own[i].total;
  uint32_t before = sum_before<K>(sum, &total);
  if constexpr (K.many) sync_ctas<K>();
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
  sync_ctas<K>();  // all have seen that
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
  sync_ctas<K>();
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
