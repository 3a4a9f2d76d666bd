// SPDX-License-Identifier: Apache-2.0
// The largest value of a row, and a bound on its k-th largest one from the largest values of some 2000 chunks: so few
// tokens reach it that the search for the k likeliest looks at them alone.
#pragma once
#include <fulmen/cuda/tile/token_slice.cuh>

namespace fulmen::cuda {

// Zeroes the bins; a barrier must follow.
template <class Team>
__device__ __forceinline__ void clear_bins() {
  for (int32_t i = int32_t(threadIdx.x); i < kTokenBins; i += Team::kThreads)
    Team::template shared<uint32_t>(TokenLayout::kBins)[i] = 0;
}

// The bin in which the running count of the CTA's bins reaches `goal` >= 1 (the last one if none does), and the count
// before it.
template <class Team>
__device__ __forceinline__ void find_bin(Team& team, uint32_t goal, uint32_t& bin, uint32_t& before) {
  constexpr int32_t kEach = kTokenBins / Team::kThreads;
  const uint32_t* bins = Team::template shared<uint32_t>(TokenLayout::kBins) + threadIdx.x * kEach;
  uint32_t mine = 0, total;
#pragma unroll 4
  for (int32_t i = 0; i < kEach; ++i) mine += bins[i];
  uint32_t sum = team.scan(mine, total);
  TokenControl& c = team.control();
  if (threadIdx.x == 0 && total < goal) c.bin = kTokenBins - 1, c.place = total;
  if (sum < goal && goal <= sum + mine) {
#pragma unroll 1
    for (int32_t i = 0; i < kEach; ++i) {
      if (goal <= sum + bins[i]) {
        c.bin = threadIdx.x * kEach + uint32_t(i), c.place = sum;
        break;
      }
      sum += bins[i];
    }
  }
  sync_cta();
  bin = c.bin, before = c.place;
}

struct TokenRange {  // of keys, both ends included
  uint32_t low, high;
  // Bins of this width, from `high` down, cover it.
  __device__ __forceinline__ int32_t shift() const {
    const uint32_t width = high - low;
    return width < uint32_t(kTokenBins) ? 0 : last_bit(width) - 10;
  }
};

template <TokenKey K>
struct TokenTop {
  using Team = TokenTeam<K.threads, K.cluster>;
  uint32_t lane_key = kLeastKey;  // the largest of this lane's elements
  uint32_t key = 0, low = 0;      // of the row; of the chunk whose largest value is least
  int32_t num_chunks = 0;

  // Lanes whose largest values share a chunk, so that a team has at most kTokenChunks of them.
  __device__ __forceinline__ static int32_t group(const Team& team) {
    return math::max(1, int32_t(team.size()) * K.threads / kTokenChunks);
  }

  // Reads the slice once. A team barrier inside, after which all CTAs know all chunks.
  template <class Slice>
  __device__ __forceinline__ void read(Team& team, const Slice& slice) {
    float top = -kInfinity;
    bool nan = false;
    slice.for_blocks([&](int32_t b) {
      slice.for_vectors(b, [&](int32_t, const float(&v)[4]) {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) top = fmaxf(top, v[j]), nan = nan || v[j] != v[j];
      });
    });
    lane_key = nan ? kNanKey : key_of(top);
    const int32_t per = group(team);
    uint32_t chunk = lane_key;
    for (int32_t mask = 1; mask < per; mask *= 2) chunk = math::max(chunk, shuffle_xor(chunk, mask));
    const int32_t thread = int32_t(team.rank()) * K.threads + int32_t(threadIdx.x);
    uint32_t* chunks = Team::template shared<uint32_t>(TokenLayout::kTops);
    const int32_t log_per = last_bit(uint32_t(per));  // a power of two
    if ((thread & (per - 1)) == 0) team.tell_all(chunks + (thread >> log_per), chunk);
    num_chunks = int32_t(team.size()) * K.threads >> log_per;
    team.sync();
    uint32_t not_low = 0;
    for (int32_t i = int32_t(threadIdx.x); i < num_chunks; i += K.threads)
      key = math::max(key, chunks[i]), not_low = math::max(not_low, ~chunks[i]);
    key = team.max(key), low = ~team.max(not_low);
  }

  // A key that at least k tokens reach; 0 where chunks cannot tell. Every CTA of the team finds the same.
  __device__ __forceinline__ uint32_t bound(Team& team, uint32_t k) {
    if (k > uint32_t(num_chunks)) return 0;
    const uint32_t* chunks = Team::template shared<uint32_t>(TokenLayout::kTops);
    uint32_t* bins = Team::template shared<uint32_t>(TokenLayout::kBins);
    TokenRange range{low, key};
#pragma unroll 1
    for (int32_t round = 0; round < 3; ++round) {
      const int32_t shift = range.shift();
      clear_bins<Team>();
      sync_cta();
      for (int32_t i = int32_t(threadIdx.x); i < num_chunks; i += K.threads)
        if (chunks[i] >= range.low && chunks[i] <= range.high) atomic_add(&bins[(range.high - chunks[i]) >> shift], 1u);
      sync_cta();
      uint32_t bin, before;
      find_bin(team, k, bin, before);
      k -= before;
      range.high -= bin << shift;
      range.low = math::max(range.low, range.high - ((1u << shift) - 1));
      if (shift <= 13) break;  // fine enough: within 2^-9 of the value
    }
    return range.low;
  }
};

// The first place of the row's largest value; the answer reaches every CTA. Two team barriers at most.
template <class Team, class Slice>
__device__ __forceinline__ uint32_t first_of(Team& team, const Slice& slice, uint32_t lane_key, uint32_t top_key) {
  uint32_t first = 0xffffffffu;
  if (lane_key == top_key) {
    slice.for_blocks([&](int32_t b) {
      slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j)
          if (key_of(v[j]) == top_key) first = math::min(first, uint32_t(i + j));
      });
    });
  }
  first = ~team.max(~first);
  if (team.size() == 1) return first;
  if (threadIdx.x == 0) team.tell_all(&team.control().slots[0][team.rank()], uint64_t(first));
  team.sync();
  for (uint32_t r = 0; r < team.size(); ++r) first = math::min(first, uint32_t(team.control().slots[0][r]));
  return first;
}

}  // namespace fulmen::cuda
