// SPDX-License-Identifier: Apache-2.0
// Where to split tiles: some lanes take one limit for the cost of a piece, estimate when the last worker would finish,
// and the best limit wins. Estimates are made of the tiles' costs by bucket, in a fixed order: the same lengths give
// the same splits, hence the same bits.
#pragma once
#include <fulmen/cuda/attention/prepare_tiles.cuh>
#include <fulmen/cuda/ptx/math.cuh>

namespace fulmen::cuda::attention_prepare {

inline constexpr float kNoLimit = 3e38f;

// To a few places: these are estimates.
__device__ __forceinline__ float over(float a, float b) { return a * reciprocal(b); }

// A limit for the cost of a piece, and what dividing by it and by others takes.
struct Limit {
  float cost, inverse, unit, per_unit, per_split;
};
__device__ __forceinline__ Limit limit_from(const Params& p, float cost, float unit) {
  return {cost, reciprocal(cost), unit, reciprocal(unit), reciprocal(float(p.min_split.divisor))};
}

// Pieces of a tile of this cost where none may cost more than the limit.
__device__ __forceinline__ float pieces_of(const Params& p, float cost, const Limit& limit) {
  const float num_keys = cost * limit.per_unit - kItemOverhead;
  float pieces = fminf(ceilf(cost * limit.inverse), floorf(num_keys * limit.per_split));
  if (p.fixed_split_len > 0) {
    pieces = ceilf(over(num_keys, float(p.fixed_split_len)));
    while (pieces > kMaxSplits) pieces = ceilf(pieces / 2);
  }
  return cost <= limit.cost ? 1 : fmaxf(1, pieces);
}

// Lanes that try the same limit.
template <Key K>
struct Team {
  static constexpr int32_t kLanes = K.threads >= kManyThreads ? 32 : 8;
  static constexpr int32_t kWarps = kLanes * kCandidates / 32;           // that estimate
  static constexpr int32_t kPerLane = K.threads == kFewThreads ? 4 : 2;  // buckets that a lane looks at at once
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

// What estimates are made from.
struct Batch {
  const uint16_t* used;  // buckets that are not empty, in order
  int32_t num_used, max_slots, max_rows;
  float total;  // of all tiles' costs
};

// A bucket's tiles, as a limit would have them.
struct Cut {
  float whole = 0, split = 0;  // tiles
  float pieces = 1, cost = 0, piece = 0;

  Cut() = default;
  __device__ __forceinline__ Cut(const Params& p, int32_t bucket, const Limit& limit) {  // -1: none
    const Shared& s = shared();
    const float overhead = kItemOverhead * limit.unit;
    whole = bucket < 0 ? 0 : float(s.count[bucket]), cost = bucket < 0 ? 0 : bit_cast<float>(s.top[bucket]);
    pieces = pieces_of(p, cost, limit);
    piece = (cost - overhead) * reciprocal(pieces) + overhead;
  }
  __device__ __forceinline__ float wanted() const { return pieces > 1 ? whole * pieces : 0; }  // slots
  // Where slots run out, the rest of a bucket stays whole.
  __device__ __forceinline__ void ration(float left) {
    left = fmaxf(0, left);
    split = wanted() <= left ? (pieces > 1 ? whole : 0) : floorf(over(left, pieces));
    whole -= split;
  }
  __device__ __forceinline__ float work() const { return whole * cost + split * pieces * piece; }
  __device__ __forceinline__ float items() const { return whole + split * pieces; }
};

// When the last worker finishes, if items start in order as workers get free: an item starts no later than the work
// before it, shared by all; nor does it all take more than full rounds of the longest item. A lane has a few buckets.
template <Key K>
__device__ __forceinline__ float finish_with(const Params& p, const Batch& batch, const Limit& limit) {
  const float workers = float(p.num_workers), share = reciprocal(workers), heads = float(p.num_kv_heads);
  float work = 0, items = 0, longest = 0, latest = 0, slots = 0;
  const auto finish = [&](float n, float through, float count, float cost) {  // of the last of n items of one cost
    const float last = count > workers ? (through - cost) * share + cost : cost;
    longest = n > 0 ? fmaxf(longest, cost) : longest, latest = n > 0 ? fmaxf(latest, last) : latest;
  };
  const auto finish_both = [&](const Cut& c, float through, float count) {
    finish(c.whole, through - c.split * c.pieces * c.piece * heads, count - c.split * c.pieces * heads, c.cost);
    finish(c.split, through, count, c.piece);
  };
  constexpr int32_t kPer = Team<K>::kPerLane;
#pragma unroll 1
  for (int32_t first = 0; first < batch.num_used; first += kPer * Team<K>::kLanes) {
    Cut cuts[kPer];
    float wanted = 0, mine = 0, own = 0;
#pragma unroll
    for (int32_t k = 0; k < kPer; ++k) {
      const int32_t i = first + kPer * Team<K>::lane() + k;
      cuts[k] = Cut(p, i < batch.num_used ? batch.used[i] : -1, limit);
      wanted += cuts[k].wanted();
    }
    const float taken = slots + Team<K>::sum_through(wanted);
    slots = Team<K>::last(taken);
    float left = float(batch.max_slots) - (taken - wanted);
#pragma unroll
    for (int32_t k = 0; k < kPer; ++k) {
      const float next = left - cuts[k].wanted();
      cuts[k].ration(left), left = next;
      mine += cuts[k].work() * heads, own += cuts[k].items() * heads;
    }
    const float last_work = work + Team<K>::sum_through(mine), last_item = items + Team<K>::sum_through(own);
    float through = last_work - mine, count = last_item - own;
#pragma unroll
    for (int32_t k = 0; k < kPer; ++k) {
      through += cuts[k].work() * heads, count += cuts[k].items() * heads;
      finish_both(cuts[k], through, count);
    }
    work = Team<K>::last(last_work), items = Team<K>::last(last_item);
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

// Every team's estimate, for best_limit(); whole warps have none.
template <Key K>
__device__ __forceinline__ void estimate_all(const Params& p, const Batch& batch) {
  Shared& s = shared();
  if (warp_index() >= Team<K>::kWarps) return;
  const float longest = bit_cast<float>(s.top[batch.used[0]]), unit = unit_cost(p, batch.max_rows);
  const float ideal = over(batch.total * float(p.num_kv_heads), float(p.num_workers));
  const int32_t team = int32_t(threadIdx.x) / Team<K>::kLanes;
  const float limit = candidate(team, longest, ideal);
  float finish = finish_with<K>(p, batch, limit_from(p, limit, unit));
  if (team == 0) finish *= 1 - 1.f / 64;  // a split must earn its merge
  if (Team<K>::lane() == 0) s.estimates[team] = finish, s.limits[team] = limit;
}
// After a barrier.
__device__ __forceinline__ float best_limit() {
  const Shared& s = shared();
  const uint32_t bits = bit_cast<uint32_t>(s.estimates[warp_lane()]), least = ~max_warp(~bits);
  return s.limits[first_bit(ballot(bits == least))];
}

struct Split {
  int32_t step = 0, num_pieces = 1;  // step 0: not split
  int32_t longest;                   // keys
};

// Where the first of a tile's pieces begins, before it is cut off at the tile's first key: at a multiple of the step
// under fixed_split_len, else just before that key, so that pieces are alike behind a window too.
__device__ __forceinline__ int32_t split_start(const Params& p, const Tile& t, int32_t step) {
  if (t.begin == 0) return 0;
  if (p.fixed_split_len > 0) return quotient(t.begin, step) * step;
  return p.tile_kv.quotient(t.begin) * p.tile_kv.divisor;
}

__device__ __forceinline__ Split split_of(const Params& p, const Tile& t, float limit) {
  const int32_t num_keys = t.end - t.begin;
  Split s{0, 1, num_keys};
  const float cost = cost_of(p, t.num_rows, num_keys);
  if (cost <= limit) return s;
  int32_t step = 0;
  if (p.fixed_split_len > 0) {
    step = fixed_step(p, t.request.kv_len);
  } else {
    const float most = float(math::max(1, p.min_split.quotient(num_keys)));
    const float part = ceilf(over(float(t.end - split_start(p, t, 0)), fminf(most, ceilf(over(cost, limit)))));
    step = math::max(1, p.tile_kv.quotient(int32_t(fminf(part, 1e9f)) + p.tile_kv.divisor - 1)) * p.tile_kv.divisor;
  }
  const int32_t num_pieces = quotient(t.end - 1 - split_start(p, t, step), step) + 1;
  if (num_pieces >= 2) s = {step, num_pieces, step};
  return s;
}

__device__ __forceinline__ int32_t whole_bucket(const Params& p, const Tile& t) {
  return bucket_of(cost_of(p, t.num_rows, t.end - t.begin));
}

}  // namespace fulmen::cuda::attention_prepare
