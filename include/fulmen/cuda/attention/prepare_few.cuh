// SPDX-License-Identifier: Apache-2.0
// Plans as many tiles as fit into the registers of one CTA. Tables are read once and every tile is looked at once
// before the limit is known and once after: what is counted gives each tile its place at the same time. Three barriers
// where no tile is split, two more for those that are and two where requests have different numbers of rows.
#pragma once
#include <fulmen/cuda/attention/prepare_write.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::attention_prepare {

template <Key K>
__device__ __forceinline__ int32_t tile_index(int32_t k) {
  return k * K.threads + int32_t(threadIdx.x);
}
__device__ __forceinline__ float sum_warp(float x) {  // in a fixed order
#pragma unroll
  for (int32_t mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}
__device__ __forceinline__ uint32_t lanes_below() { return (1u << warp_lane()) - 1; }

// Of shared memory; a barrier follows before it is counted in.
template <Key K>
__device__ __forceinline__ void clear_few() {
  Shared& s = shared();
#pragma unroll
  for (int32_t i = int32_t(threadIdx.x); i < kBuckets; i += K.threads) s.count[i] = s.top[i] = 0;
  if (threadIdx.x < kPieceBuckets) s.pieces[threadIdx.x] = 0;
  if (threadIdx.x < kBuckets / 32) s.words[threadIdx.x] = 0;
  if (threadIdx.x < kTilesPerThread) s.split_tiles[threadIdx.x] = 0;
  if (threadIdx.x == 0) s.max_rows = s.num_slots = 0;
}

// Requests with qo_indptr, to shared memory or the workspace. Returns the number of tiles.
template <Key K>
__device__ __forceinline__ int32_t read_rows(const Params& p) {
  constexpr int32_t kNumWarps = K.threads / 32;
  static_assert(kNumWarps * K.tiles <= 32);
  Shared& s = shared();
  Request* to = requests_of(p);
  const uint32_t most = uint32_t(p.max_tiles);
  uint32_t num_tiles = 0;
#pragma unroll 1
  for (int32_t first = 0; first < p.batch_size; first += K.threads * K.tiles) {
    Numbers numbers[K.tiles];
    Request r[K.tiles];
    uint32_t tiles[K.tiles], through[K.tiles];
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k)
      numbers[k] = numbers_of(p, math::min(first + tile_index<K>(k), p.batch_size - 1));
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k) {
      const int32_t i = first + tile_index<K>(k);
      r[k] = request_of(p, math::min(i, p.batch_size - 1), numbers[k]);
      tiles[k] = i < p.batch_size ? math::min(uint32_t(tiles_of(p, r[k])), most) : 0;
      through[k] = sum_through(tiles[k]);
      if (warp_lane() == 31) s.warp_sums[k * kNumWarps + warp_index()] = through[k];
    }
    sync_cta();
    const uint32_t own = warp_lane() < kNumWarps * K.tiles ? s.warp_sums[warp_lane()] : 0, sums = sum_through(own);
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k) {
      const int32_t i = first + tile_index<K>(k);
      const uint32_t before = num_tiles + shuffle_from(sums - own, k * kNumWarps + warp_index());
      r[k].first_tile = int32_t(math::min(before + through[k] - tiles[k], most));
      if (i < p.batch_size) to[i] = r[k];
    }
    num_tiles = math::min(num_tiles + shuffle_from(sums, 31), most);
    sync_cta();
  }
  return int32_t(num_tiles);
}

template <Key K>
__device__ __forceinline__ int32_t read_tiles(const Params& p, Own<K>& own) {
  const bool uniform = p.qo_indptr.data == nullptr;
  if (p.batch_size == 0 || (uniform && p.rows_per_request == 0)) return clear_lists<K>(p), 0;
  const int32_t last = p.batch_size - 1;
  int32_t num_tiles = 0, owner[K.tiles];
  Request r[K.tiles];
  if (uniform) {
    num_tiles = math::min(p.batch_size * p.tiles_per_request.divisor, p.max_tiles);
    Numbers numbers[K.tiles];
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k) {
      owner[k] = math::min(p.tiles_per_request.quotient(tile_index<K>(k)), last);
      numbers[k] = numbers_of(p, owner[k]);
    }
    clear_lists<K>(p);  // while they are on their way
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k) {
      r[k] = request_of(p, owner[k], numbers[k]);
      r[k].first_tile = owner[k] * p.tiles_per_request.divisor;
    }
    sync_cta();  // counters are clear
  } else {
    clear_lists<K>(p);
    num_tiles = read_rows<K>(p);
    const Request* requests = requests_of(p);
#pragma unroll
    for (int32_t k = 0; k < K.tiles; ++k) {  // often every request has one tile
      const int32_t i = tile_index<K>(k);
      owner[k] = math::min(i, last), r[k] = requests[owner[k]];
      if (i < num_tiles && (i > last || r[k].first_tile != i || r[k].qo_len == 0))
        owner[k] = owner_of(p, requests, i), r[k] = requests[owner[k]];
    }
  }
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) {
    own.mine[k] = tile_index<K>(k) < num_tiles;
    own.tile[k] = tile_of(p, tile_index<K>(k), owner[k], r[k]);
  }
  return num_tiles;
}

// Every tile into its bucket. Returns this warp's share of the sum of all costs.
template <Key K>
__device__ __forceinline__ float count_tiles(const Params& p, Own<K>& own) {
  Shared& s = shared();
  float total = 0;
  uint32_t max_rows = 0, counts = 0, bits[K.tiles], same[K.tiles], before[K.tiles];
  int32_t leader[K.tiles];
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) {
    const Tile& t = own.tile[k];
    const float cost = own.mine[k] ? cost_of(p, t.num_rows, t.end - t.begin) : 0;
    total += cost, max_rows = math::max(max_rows, own.mine[k] ? uint32_t(t.num_rows) : 0u);
    bits[k] = bit_cast<uint32_t>(cost);
    own.bucket[k] = own.mine[k] ? bucket_of(cost) : -1;
    const uint32_t members = ballot(own.mine[k]);  // lanes of the first one's bucket go together
    leader[k] = members == 0 ? -1 : first_bit(members);
    const int32_t first = shuffle_from(own.bucket[k], leader[k] & 31);
    same[k] = ballot(own.mine[k] && own.bucket[k] == first);
    const bool together = (same[k] >> warp_lane()) % 2 != 0;
    const uint32_t most = max_warp(together ? bits[k] : 0u);
    before[k] = 0;
    if (warp_lane() == leader[k] || (own.mine[k] && !together)) {
      atomic_max(&s.top[own.bucket[k]], together ? most : bits[k]);
      before[k] = atomic_add_local(&s.count[own.bucket[k]], together ? uint32_t(num_bits(same[k])) : 1);
      counts |= 1u << k;
    }
  }
  if (p.qo_indptr.data != nullptr) {
    max_rows = max_warp(max_rows);
    if (warp_lane() == 0 && max_rows > 0) atomic_max(&s.max_rows, max_rows);
  }
  total = sum_warp(total);  // while counts are on their way back
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) {
    if ((counts >> k) % 2 != 0 && before[k] == 0) atomic_or(&s.words[own.bucket[k] / 32], 1u << (own.bucket[k] % 32));
    const uint32_t first = shuffle_from(before[k], leader[k] & 31);
    const bool together = (same[k] >> warp_lane()) % 2 != 0;
    own.place[k] = together ? first + uint32_t(num_bits(same[k] & lanes_below())) : before[k];
  }
  return total;
}

// The list of buckets that are not empty, this warp's own. Returns their number.
__device__ __forceinline__ int32_t list_used(uint16_t* used) {
  const uint32_t own = warp_lane() < kBuckets / 32 ? shared().words[warp_lane()] : 0, n = uint32_t(num_bits(own));
  const uint32_t through = sum_through(n);
  uint32_t words = ballot(own != 0);
#pragma unroll 1
  for (; words != 0; words &= words - 1) {
    const int32_t i = first_bit(words);
    const uint32_t word = shuffle_from(own, i), before = shuffle_from(through - n, i);
    if ((word >> warp_lane()) % 2 != 0)
      used[before + uint32_t(num_bits(word & lanes_below()))] = uint16_t(i * 32 + warp_lane());
  }
  sync_warp();
  return int32_t(shuffle_from(through, 31));
}

// First places of the buckets' tiles; one warp calls.
__device__ __forceinline__ void place_tiles(const uint16_t* used, int32_t num_used) {
  Shared& s = shared();
  uint32_t before = 0;
#pragma unroll 1
  for (int32_t first = 0; first < num_used; first += 32) {
    const int32_t i = first + warp_lane(), bucket = used[math::min(i, num_used - 1)];
    const uint32_t n = i < num_used ? s.count[bucket] : 0, through = sum_through(n);
    if (i < num_used) s.base[bucket] = before + through - n;
    before += shuffle_from(through, 31);
  }
}

// Also sets what the head says of slots.
template <Key K>
__device__ __forceinline__ float limit_of(const Params& p, float warp_total) {
  constexpr int32_t kNumWarps = K.threads / 32;
  Shared& s = shared();
  if (warp_lane() == 0) s.warp_sums[warp_index()] = bit_cast<uint32_t>(warp_total);
  sync_cta();
  const bool uniform = p.qo_indptr.data == nullptr;
  const int32_t most_rows = uniform ? math::min(p.tile_q, p.rows_per_request * p.group.divisor) : int32_t(s.max_rows);
  const int32_t rows = math::max(1, most_rows);
  const int32_t slots = math::min(p.max_slots, int32_t(uint32_t(p.slot_room) / uint32_t(rows)));
  if (threadIdx.x == 0) s.slot_rows = rows, s.max_slots = slots;
  uint16_t* used = s.used[warp_index()];
  const bool estimates = warp_index() < Team<K>::kWarps, places = warp_index() == kNumWarps - 1;
  const int32_t num_used = estimates || places ? list_used(used) : 0;
  if (places) place_tiles(used, num_used);
  const bool may_split = !p.disable_split && p.max_slots >= 2;
  if (may_split && estimates) {
    const uint32_t bits = warp_lane() < kNumWarps ? s.warp_sums[warp_lane()] : 0;
    estimate_all<K>(p, {used, num_used, slots, rows, sum_warp(bit_cast<float>(bits))});
  }
  sync_cta();
  return may_split ? best_limit() : kNoLimit;
}

// Costs that pieces have: from eight powers of two below, up to what no piece exceeds by much.
__device__ __forceinline__ int32_t piece_bucket(const Params& p, float cost, float limit) {
  const float most = p.fixed_split_len > 0 ? bit_cast<float>(shared().top[shared().used[0][0]]) : 4 * limit;
  return math::max(0, math::min(bucket_of(cost) - bucket_of(most), kPieceBuckets - 1));
}

template <Key K>
__device__ __forceinline__ void count_splits(const Params& p, const Own<K>& own, float limit, OwnSplits<K>& to) {
  Shared& s = shared();
  constexpr uint32_t kMost = 1 << 20;  // sums of so many stay below 2^32
  uint32_t slots = 0, through[K.tiles], before[K.tiles], splits[K.tiles], index[K.tiles];
  int32_t leader[K.tiles];
  bool together[K.tiles];
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) {
    const Tile& t = own.tile[k];
    to.split[k] = {0, own.mine[k] ? 1 : 0, 0};
    if (own.mine[k]) to.split[k] = split_of(p, t, limit);
    const uint32_t n = math::min(uint32_t(to.split[k].num_pieces), kMost);
    to.bucket[k] = own.mine[k] ? piece_bucket(p, cost_of(p, t.num_rows, to.split[k].longest), limit) : -1;
    const uint32_t members = ballot(own.mine[k]);
    leader[k] = members == 0 ? 0 : first_bit(members);
    const int32_t first_bucket = shuffle_from(to.bucket[k], leader[k]);
    together[k] = own.mine[k] && to.bucket[k] == first_bucket;
    const uint32_t sum = sum_through(together[k] ? n : 0), all = shuffle_from(sum, 31);
    through[k] = sum - n, before[k] = index[k] = 0;
    if (own.mine[k] && (warp_lane() == leader[k] || !together[k]))
      before[k] = atomic_add_local(&s.pieces[to.bucket[k]], together[k] ? all : n);
    splits[k] = ballot(n > 1);
    if (warp_lane() == 0 && splits[k] != 0)
      index[k] = atomic_add_local(&s.split_tiles[k], uint32_t(num_bits(splits[k])));
    to.slot[k] = slots, slots += n > 1 ? n : 0;
  }
  const uint32_t sum = sum_through(slots);
  uint32_t first_slot = 0;
  if (warp_lane() == 31 && sum > 0) first_slot = atomic_add_local(&s.num_slots, sum);
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) {  // all counts have been asked for
    const uint32_t first = shuffle_from(before[k], leader[k]);
    to.place[k] = together[k] ? first + through[k] : before[k];
    to.index[k] = shuffle_from(index[k], 0) + uint32_t(num_bits(splits[k] & lanes_below()));
  }
  first_slot = shuffle_from(first_slot, 31) + sum - slots;
#pragma unroll
  for (int32_t k = 0; k < K.tiles; ++k) to.slot[k] += first_slot;
}

// First places of the buckets' pieces, this warp's own copy. Returns the sum of all.
__device__ __forceinline__ uint32_t place_pieces(uint32_t* base) {
  const uint32_t* from = shared().pieces + 4 * warp_lane();
  uint32_t n[4], sum = 0;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) n[i] = from[i], sum += n[i];
  const uint32_t through = sum_through(sum);
  uint32_t before = through - sum;
#pragma unroll
  for (int32_t i = 0; i < 4; ++i) base[4 * warp_lane() + i] = before, before += n[i];
  sync_warp();
  return shuffle_from(through, 31);
}

// False: slots do not suffice for all tiles beyond the limit.
template <Key K>
__device__ __forceinline__ bool plan_few(const Params& p) {
  Shared& s = shared();
  Own<K> own;
  const int32_t num_tiles = read_tiles<K>(p, own);
  if (num_tiles == 0) {
    if (threadIdx.x == 0) s.slot_rows = 1, s.max_slots = 0, s.num_records = 0;
    return true;
  }
  const float limit = limit_of<K>(p, count_tiles<K>(p, own));
  allow_successor();  // not before: attention's CTAs that come early cost what this one and those that fetch need
  if (threadIdx.x == 0) s.num_records = uint32_t(num_tiles);
  if (limit >= kNoLimit) return write_tiles<K>(p, own, uint32_t(num_tiles)), true;
  OwnSplits<K> splits;
  count_splits<K>(p, own, limit, splits);
  sync_cta();
  if (s.num_slots > uint32_t(s.max_slots)) return false;
  const uint32_t total = math::min(place_pieces(s.piece_base[warp_index()]), uint32_t(p.max_records));
  if (threadIdx.x == 0) s.num_records = total;
  write_all<K>(p, own, splits, total);
  return true;
}

}  // namespace fulmen::cuda::attention_prepare
