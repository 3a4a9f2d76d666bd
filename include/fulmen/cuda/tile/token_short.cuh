// SPDX-License-Identifier: Apache-2.0
// Filters of which few tokens of a row can matter: a bound from a part of the row that is spread over it, one read of
// the row for the tokens that reach it, and the leader's list of those. No CTA waits for another before the list.
#pragma once
#include <fulmen/cuda/tile/token_filter_row.cuh>

namespace fulmen::cuda {

// The least value that min_p may keep where some value is `top`, or a little less.
template <bool kLogits>
struct LeastValue {
  float step;  // logits: from the top, else a factor
  __device__ __forceinline__ LeastValue() : step(0) {}
  __device__ __forceinline__ explicit LeastValue(const RowFilter& f) {
    if constexpr (kLogits)
      step = (math::log2(f.min_p) - 1e-3f) / (f.inv_temperature * 1.442695f);
    else
      step = f.min_p * (1 - 1e-6f);
  }
  __device__ __forceinline__ float operator()(float top) const {
    if constexpr (kLogits) return top + step - 4e-7f * fabsf(top);
    return top * step;
  }
};

template <TokenKey K>
struct TokenShort {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Slice = TokenSlice<K>;
  using List = TokenList<Team>;
  static constexpr int32_t kChunks = Team::kThreads * kTokenSteps;  // of a CTA: a lane has one per step of its blocks
  static constexpr int32_t kMostListed = Team::kClusters ? 2100 : kMostListedByOne;  // of k tokens
  static constexpr int32_t kGroups = 128, kByGroups = 96;  // of the team's lanes; the most tokens for them
  static_assert(kChunks <= kTokenList && Team::kThreads % kGroups == 0);
  Team& team;
  const Slice& slice;
  bool large_index;

  __device__ __forceinline__ static bool counts(const Team& team, int64_t top_k) {
    return top_k <= int64_t(kMostListed) && top_k <= kChunks / 4 * 3 * int64_t(team.size());
  }
  __device__ __forceinline__ static bool serves(const Team& team, const RowFilter& f, int32_t n) {
    const bool mass_of_row = f.top_p < 1 && (f.joint || f.top_k == kAllTokens);
    return !mass_of_row && (counts(team, f.top_k) || (f.min_p > 0 && !(f.top_p < 1)) || n <= kTokenList);
  }

  // The first part of run: the largest value of this lane's share of a sample of the row, which is all that a bound
  // needs. No barrier inside.
  __device__ __forceinline__ float sample(int64_t top_k) {
    return slice.n > kTokenList ? read_sample(!counts(team, top_k), top_k) : 0;
  }
  // False: the list cannot hold what reaches the bound, or holds fewer than needed. Else control().list_count says how
  // many the leader's list has; every CTA of the team knows. top: sample's of a top_k not below this one.
  __device__ __forceinline__ bool run(float top, int64_t top_k, int64_t needed, float least,
                                      const LeastValue<K.logits>& least_value) {
    TokenControl& c = team.control();
    const bool follows = !counts(team, top_k);  // the bound rises with the largest value
    float low = least;
    if (slice.n > kTokenList) {
      if (follows) {
        const uint32_t key = team.max(key_of(top));
        if (threadIdx.x == 0) c.key = key;
        sync_cta();
      } else if (top_k <= kByGroups) {
        low = fmaxf(low, bound_of_groups(top, int32_t(top_k)));
      } else {  // each CTA's part of them
        const uint32_t size = team.size(), k = (uint32_t(top_k) + size - 1) / size;
        low = fmaxf(low, float_of(~team.team_max(~List::bound(kChunks, k))));
      }
    }
    return gather(needed, low, least, follows && slice.n > kTokenList, least_value);
  }

  // The tokens that are not below `low` > -inf.
  __device__ __forceinline__ bool gather(int64_t needed, float low, float least, bool follows,
                                         const LeastValue<K.logits>& least_value) {
    TokenControl& c = team.control();
    slice.for_values([&](int32_t b, const float(&v)[kTokenSteps][4]) {
      if (follows) low = fmaxf(least, least_value(float_of(load_again(&c.key))));
      bool some = false;
#pragma unroll
      for (int32_t s = 0; s < kTokenSteps; ++s)
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) some = some || !(v[s][j] < low);
      if (!some) return;
      float top = low;
      uint32_t mine = 0;
#pragma unroll
      for (int32_t s = 0; s < kTokenSteps; ++s)
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) mine |= v[s][j] < low ? 0u : 1u << (4 * s + j), top = fmaxf(top, v[s][j]);
      List::push(slice, b, mine, large_index);
      if (follows && key_of(top) > load_again(&c.key)) atomic_max(&c.key, key_of(top));
    });
    List::deliver(team);
    team.sync();
    const uint32_t n = c.list_count;
    if (n >= uint32_t(needed) && n <= uint32_t(kTokenList)) return true;
    sync_cta();
    clear_list(team);
    return false;
  }

 private:
  __device__ __forceinline__ static uint32_t load_again(const uint32_t* p) {
    return *static_cast<const volatile uint32_t*>(p);
  }

  // The k-th of the largest values of the team's groups of lanes: as many tokens at least are not below it. A team
  // barrier inside, one of the CTA at the end.
  __device__ __forceinline__ float bound_of_groups(float top, int32_t k) {
    constexpr int32_t kShare = Team::kThreads / kGroups;  // threads that count for a group
    const int32_t lanes = kShare * int32_t(team.size());  // of a group, a warp at most
    uint32_t* keys = Team::template shared<uint32_t>(TokenLayout::kSums);
#pragma unroll 1
    for (int32_t mask = 1; mask < lanes; mask *= 2) top = fmaxf(top, shuffle_xor(top, mask));
    if (int32_t(threadIdx.x) % lanes == 0)
      team.tell_all(keys + (int32_t(team.rank()) * Team::kThreads + int32_t(threadIdx.x)) / lanes, key_of(top));
    team.sync();
    const int32_t i = int32_t(threadIdx.x) / kShare;
    const uint32_t mine = keys[i];
    int32_t before = 0;
#pragma unroll 4
    for (int32_t g = int32_t(threadIdx.x) % kShare; g < kGroups; g += kShare)
      before += keys[g] > mine || (keys[g] == mine && g < i);
#pragma unroll
    for (int32_t mask = 1; mask < kShare; mask *= 2) before += shuffle_xor(before, mask);
    if (before == k - 1) team.control().key = mine;
    sync_cta();
    return float_of(team.control().key);
  }

  // Blocks spread over the slice; the lane's largest value. For a large k the largest of each of its chunks becomes an
  // entry of the list.
  __device__ __forceinline__ float read_sample(bool follows, int64_t top_k) {
    int32_t num = slice.num_blocks;
    if constexpr (!K.resident) {
      const int64_t needed = follows ? 2 * Team::kWarps : top_k * slice.num_blocks / 1400 + 2 * Team::kWarps;
      num = int32_t(math::min(int64_t(num), needed));
    }
    float top[kTokenSteps];
#pragma unroll
    for (int32_t s = 0; s < kTokenSteps; ++s) top[s] = -kInfinity;
    for (int32_t t = warp_index(); t < num; t += Team::kWarps) {
      float v[kTokenSteps][4];
      slice.fetch_block(t * slice.num_blocks / num, v);
#pragma unroll
      for (int32_t s = 0; s < kTokenSteps; ++s)
        top[s] = fmaxf(fmaxf(fmaxf(v[s][0], v[s][1]), fmaxf(v[s][2], v[s][3])), top[s]);
    }
    const float all = fmaxf(fmaxf(top[0], top[1]), fmaxf(top[2], top[3]));
    if (follows || top_k <= kByGroups) return all;
#pragma unroll
    for (int32_t s = 0; s < kTokenSteps; ++s) {
      const int32_t i = s * Team::kThreads + int32_t(threadIdx.x);
      List::entries()[i] = entry_of(key_of(top[s]), uint32_t(i));
    }
    return all;
  }
};

// Brings the k largest tokens of keys low_key..high_key to the leader's list, or all if they are fewer; k is at most
// what the list holds. Slow and short: for rows that TokenShort cannot serve, such as one value all over.
template <TokenKey K, class Team>
__device__ __forceinline__ void list_largest(Team& team, const TokenSlice<K>& slice, uint32_t k, uint32_t low_key,
                                             uint32_t high_key, bool large_index) {
  uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  uint32_t low = low_key, high = high_key,
           above = 0;  // k tokens reach low, or it is the least; `above` are beyond high
  uint64_t num = 0;
#pragma unroll 1
  for (bool ends = false; !ends;) {  // the last turn counts the tokens of the key `low`, of each block
    ends = low == high;
    const uint32_t from = low + (high - low + 1) / 2, width = ends ? 0 : kNanKey - from;
    num = 0;
    slice.for_blocks([&](int32_t b) {
      uint32_t here = 0;
      slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) here += key_of(v[j]) - from <= width && i + j < slice.n;
      });
      num += here;
      if (ends) team.tell_all_by_warp(blocks + slice.of_row(b), uint64_t(add_warp(here)));
    });
    num = team.team_sum(num);
    if (ends) break;
    if (num >= k)
      low = from;
    else
      high = from - 1, above = uint32_t(num);
  }
  const uint32_t ties = math::min(k - above, uint32_t(num)), first = large_index ? uint32_t(num) - ties : 0;
  slice.for_blocks([&](int32_t b) {
    uint64_t sum = 0;
#pragma unroll 1
    for (int32_t i = warp_lane(); i < slice.of_row(b); i += 32) sum += blocks[i];
    uint32_t before = uint32_t(add_warp(sum));
    slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
      uint32_t tied = 0, chosen = 0, total;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) {
        const uint32_t key = i + j < slice.n ? key_of(v[j]) : 0;
        tied |= uint32_t(key == low) << j, chosen |= uint32_t(key > low) << j;
      }
      uint32_t at = before + scan_warp(uint32_t(num_bits(tied)), total) - first;
      before += total;
#pragma unroll 1
      for (; tied != 0; tied &= tied - 1, ++at)
        if (at < ties) chosen |= tied & (0u - tied);
      if (chosen != 0) TokenList<Team>::push(slice, b, chosen << (i / 128 % kTokenSteps * 4), large_index);
    });
  });
  TokenList<Team>::deliver(team);
  team.sync();
}

}  // namespace fulmen::cuda
