// SPDX-License-Identifier: Apache-2.0
// The largest value of a row; ranges of keys and their bins.
#pragma once
#include <fulmen/cuda/tile/token_slice.cuh>

namespace fulmen::cuda {

// Zeroes the bins; a barrier must follow.
template <class Team, class Bin = uint32_t>
__device__ __forceinline__ void clear_bins() {
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < kTokenBins; i += Team::kThreads)
    Team::template shared<Bin>(TokenLayout::kBins)[i] = 0;
}

// The bin in which the running sum of the CTA's bins reaches `goal` >= 1 (the last one if none does), and the sum
// before it.
template <class Team, class Bin>
__device__ __forceinline__ void find_bin(Team& team, Bin goal, uint32_t& bin, Bin& before) {
  constexpr int32_t kEach = kTokenBins / Team::kThreads;
  const Bin* bins = Team::template shared<Bin>(TokenLayout::kBins) + threadIdx.x * kEach;
  Bin mine = 0, total;
#pragma unroll 4
  for (int32_t i = 0; i < kEach; ++i) mine += bins[i];
  Bin sum = team.scan(mine, total);
  TokenControl& c = team.control();
  if (threadIdx.x == 0 && total < goal) c.bin = kTokenBins - 1, c.entry = total;
  if (sum < goal && goal <= sum + mine) {
#pragma unroll 1
    for (int32_t i = 0; i < kEach; ++i) {
      if (goal <= sum + bins[i]) {
        c.bin = threadIdx.x * kEach + uint32_t(i), c.entry = sum;
        break;
      }
      sum += bins[i];
    }
  }
  sync_cta();
  bin = c.bin, before = Bin(c.entry);
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
  uint32_t key = 0;               // of the row

  // Reads the slice once. A team barrier inside.
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
    key = team.team_max(lane_key);
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
  uint64_t* slots = team.control().slots[team.team_turn];
  team.team_turn ^= 1;
  if (threadIdx.x == 0) team.tell_all(slots + team.rank(), uint64_t(first));
  team.sync();
#pragma unroll 1
  for (uint32_t r = 0; r < team.size(); ++r) first = math::min(first, uint32_t(slots[r]));
  return first;
}

}  // namespace fulmen::cuda
