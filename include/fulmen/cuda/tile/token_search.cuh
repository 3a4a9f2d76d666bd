// SPDX-License-Identifier: Apache-2.0
// Where a filter cuts a row: the shortest prefix of the order that reaches a number of tokens or a mass. Where a bound
// tells that few tokens matter, they go to the list at once and the leader does the rest. Else every round counts the
// tokens of a range of values in bins, bounds the masses of the bins by their edges, and goes on with the few bins that
// may hold the cut; a range that fits into the list is sorted. Masses above the range are sums, not bounds. Rounds are
// bounded: ranges of keys shrink to one key, whose tokens are equal.
#pragma once
#include <fulmen/cuda/tile/token_sum.cuh>

namespace fulmen::cuda {

// Values to bins, descending: by the bits of the key; or evenly by value, where keys of both signs would leave most
// bins to values around 0.
struct TokenBins {
  TokenRange range;
  int32_t shift;
  bool by_value;
  float top, scale, width;  // by value

  __device__ __forceinline__ TokenBins(const TokenRange& r, bool value)
      : range(r), shift(r.shift()), by_value(value), top(float_of(r.high)) {
    width = (top - float_of(r.low)) / float(kTokenBins);
    scale = 1.0f / width;
    by_value = by_value && width > 0 && scale > 0 && scale < kInfinity && width < kInfinity;
  }
  __device__ __forceinline__ uint32_t of(uint32_t key) const {
    if (by_value) return math::min(uint32_t((top - float_of(key)) * scale), uint32_t(kTokenBins - 1));
    return (range.high - key) >> shift;
  }
  // Values that no token of a bin exceeds or falls short of.
  __device__ __forceinline__ float upper(uint32_t bin) const {
    if (by_value) return math::min(top, top - (float(bin) - 0.02f) * width);
    return float_of(range.high - (bin << shift));
  }
  __device__ __forceinline__ float lower(uint32_t bin) const {
    if (by_value) return bin == kTokenBins - 1 ? -kInfinity : top - (float(bin) + 1.02f) * width;
    return float_of(lowest_of_bits(bin));
  }
  __device__ __forceinline__ uint32_t lowest_of_bits(uint32_t bin) const {
    const uint32_t below = (bin << shift) + ((1u << shift) - 1);
    return below < range.high - range.low ? range.high - below : range.low;
  }
  // The keys of bins first..last.
  __device__ __forceinline__ TokenRange keys(uint32_t first, uint32_t last) const {
    if (!by_value) return {lowest_of_bits(last), range.high - (first << shift)};
    return {last == kTokenBins - 1 ? range.low : smallest_before(last + 1), smallest_before(first) - 1};
  }
  // The smallest key whose bin is before `bin`; above range.high for 0. Bins fall as keys rise.
  __device__ __forceinline__ uint32_t smallest_before(uint32_t bin) const {
    uint32_t low = range.low, high = range.high + 1;  // a warp tries 32 keys at a time
#pragma unroll 1
    while (low < high) {
      const uint32_t step = (high - low + 31) / 32, middle = low + uint32_t(warp_lane()) * step;
      const uint32_t before = ballot(middle >= high || of(middle) < bin);
      const uint32_t first = before == 0 ? 32 : uint32_t(first_bit(before));
      high = math::min(high, low + first * step);
      if (first > 0) low += (first - 1) * step + 1;
    }
    return low;
  }
};

// Goal: by_mass → the number of tokens or the mass.
template <TokenKey K, class Slice, class Weight, class Goal>
struct TokenSearch {
  using Team = TokenTeam<K.threads, K.cluster>;
  static constexpr uint32_t kEach = uint32_t(kTokenBins / K.threads);
  Team& team;
  const Slice& slice;
  const Weight& weight;
  Goal goal_of;
  bool keep_ties, large_index;
  TokenCut cut;          // what is kept so far
  bool listed = false;   // the leader's sorted list holds all tokens that can matter
  bool by_mass = false;  // the goal is of weights, else of tokens

  // Narrows `cut` to the goal; all that it keeps stays if that does not reach the goal. Below low_key no token can
  // decide. list_low > 0: the tokens from that key up are all that matter if the list holds them.
  __device__ __forceinline__ void run(uint32_t top_key, uint32_t low_key, uint32_t list_low, bool by_value) {
    TokenRange range{list_low > 0 ? list_low : math::max(low_key, cut.key), top_key};
    double above = 0;
    bool whole = list_low > 0, gathers = whole;
#pragma unroll 1
    for (int32_t round = 0; round < 32; ++round) {
      const bool sums = by_mass && range.high != top_key && !whole;
      const bool even = by_value && range.high == top_key;
      above = sum_of_team(
          gathers ? gather(team, slice, range, cut, large_index, sums, weight) : count(TokenBins(range, even), sums),
          sums, above);
      if (gathers) {
        const uint32_t n = team.control().list_count;
        if (n <= uint32_t(kTokenList)) {
          if (team.rank() == 0) TokenList<Team>::sort(int32_t(n));
          listed = whole;
          if (!whole) cut_list(int32_t(n), above);
          return;
        }
        range.low = math::max(low_key, cut.key);
        whole = gathers = false;
        sync_cta();  // all have read the count
        continue;
      }
      const bool one_key = range.low == range.high;
      uint32_t in_range = 0;
      range = narrow(TokenBins(range, even), above, in_range);
      gathers = in_range <= uint32_t(kTokenList);
      if (!gathers && (one_key || range.low == range.high)) return cut_ties(range.low, in_range, above);
      team.sync();  // all have read these bins
    }
  }

 private:
  // A team barrier, and the team's sum if it is wanted.
  __device__ __forceinline__ double sum_of_team(uint64_t mine, bool wanted, double otherwise) {
    if (wanted) return mass_of(team.team_sum(mine));
    team.sync();
    return otherwise;
  }

  __device__ __forceinline__ uint64_t count(const TokenBins& bins, bool sum_above) {
    uint32_t* to = Team::template shared<uint32_t>(TokenLayout::kBins);
    clear_bins<Team>();
    clear_list(team);
    TokenControl& c = team.control();
    if (threadIdx.x == 0) c.first_upper = c.first_lower = c.last_bin = 0;
    sync_cta();
    uint64_t above = 0;
    slice.for_blocks([&](int32_t b) {
      float sum = 0;
      slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
          const uint32_t key = key_of(v[j]);
          if (sum_above && key > bins.range.high) sum += weight(v[j]);
          if (key < bins.range.low || key > bins.range.high || i + j >= slice.n) continue;
          if (cut.keeps(key, tie_place(i + j, slice.n, large_index))) atomic_add(&to[bins.of(key)], 1u);
        }
      });
      above += fixed(sum);
    });
    return above;
  }

  // The part of the range that the cut may be in, and how many tokens it holds; `above` grows by those above it where
  // they are counted.
  __device__ __forceinline__ TokenRange narrow(const TokenBins& bins, double& above, uint32_t& in_range) {
    const double goal = goal_of(by_mass);
    TokenControl& c = team.control();
    const uint32_t* from = Team::template shared<uint32_t>(TokenLayout::kBins);
    uint32_t* num = Team::template shared<uint32_t>(TokenLayout::kTops);  // of all CTAs; this thread's bins alone
    const uint32_t first = threadIdx.x * kEach;
    double upper = 0, lower = 0, total;
    if constexpr (K.cluster) {
      uint32_t sums[kEach] = {};
#pragma unroll
      for (uint32_t r = 0; r < uint32_t(kMaxTeam); ++r) {
#pragma unroll
        for (uint32_t i = 0; i < kEach; ++i)
          if (r < team.size()) sums[i] += load_remote(from + first + i, r);
      }
#pragma unroll
      for (uint32_t i = 0; i < kEach; ++i) num[first + i] = sums[i];
    } else {
      for (uint32_t i = first; i < first + kEach; ++i) num[i] = from[i];
    }
#pragma unroll 1
    for (int32_t pass = 0; pass < 2; ++pass) {
#pragma unroll 1
      for (uint32_t i = first; i < first + kEach; ++i) {
        const uint32_t sum = num[i];
        if (sum == 0) continue;
        upper += double(sum) * (by_mass ? double(weight(bins.upper(i))) : 1.0);
        lower += double(sum) * (by_mass ? double(weight(bins.lower(i))) : 1.0);
        if (pass == 0) {
          atomic_max(&c.last_bin, i);
        } else {
          if (upper >= goal) atomic_max(&c.first_upper, ~i);
          if (lower >= goal) atomic_max(&c.first_lower, ~i);
        }
      }
      if (pass == 0) upper = above + team.scan(upper, total), lower = above + team.scan(lower, total);
    }
    sync_cta();
    const uint32_t last = math::min(~c.first_lower, c.last_bin), begin = math::min(~c.first_upper, last);
    uint64_t both = 0, sums;  // tokens before the bins, tokens in them
#pragma unroll 1
    for (uint32_t i = first; i < first + kEach; ++i) {
      if (i >= begin && i <= last) both += num[i];
      if (i < begin) both += uint64_t(num[i]) << 32;
    }
    team.scan(both, sums);
    if (!by_mass) above += double(sums >> 32);
    in_range = uint32_t(sums);
    return bins.keys(begin, last);
  }

  // The range's n tokens, sorted by the leader.
  __device__ __forceinline__ void cut_list(int32_t n, double above) {
    const double goal = goal_of(by_mass);
    TokenControl& c = team.control();
    if (team.rank() == 0) {
      const uint64_t* list = TokenList<Team>::entries();
      const int32_t each = (n + K.threads - 1) / K.threads, first = int32_t(threadIdx.x) * each;
      double sum = 0, total;
#pragma unroll 1
      for (int32_t pass = 0; pass < 2; ++pass) {
#pragma unroll 1
        for (int32_t i = first; i < math::min(n, first + each); ++i) {
          const bool before = sum < goal || i == 0;
          sum += by_mass ? mass_of(fixed(weight(float_of(key_of_entry(list[i]))))) : 1.0;
          if (pass == 0 || !before || !(sum >= goal || i == n - 1)) continue;
          team.tell_all(&c.key, key_of_entry(list[i]));
          team.tell_all(&c.end, keep_ties ? kAllTies : place_of_entry(list[i]) + 1);
        }
        if (pass == 0) sum = above + team.scan(sum, total);
      }
    }
    team.sync();
    cut = {c.key, c.end};
  }

  // More equal tokens than the list holds: which of them is the last one kept.
  __device__ __forceinline__ void cut_ties(uint32_t key, uint32_t num, double above) {
    double needed = goal_of(by_mass) - above;
    if (by_mass) needed = ceil(needed / double(weight(float_of(key))));
    const uint32_t wanted = needed >= double(num) ? num : needed >= 1 ? uint32_t(needed) : 1;
    const uint32_t nth = large_index ? num - wanted : wanted - 1;  // from the row's start
    uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
    slice.for_blocks([&](int32_t b) {
      uint64_t ties = 0;
      slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) ties += is_tie(key, v[j], i + j);
      });
      team.tell_all_by_warp(blocks + slice.first_block + b, add_warp(ties));
    });
    team.sync();
    uint64_t before = 0;
    int32_t block = 0;
    for (; block < slice.row_blocks - 1 && before + blocks[block] <= nth; ++block) before += blocks[block];
    block -= slice.first_block;
    if (block >= 0 && block < slice.num_blocks && warp_index() == 0) find_tie(key, block, uint32_t(nth - before));
    team.sync();
    cut = {key, keep_ties ? kAllTies : team.control().end};
  }
  __device__ __forceinline__ bool is_tie(uint32_t key, float x, int32_t i) const {
    return key_of(x) == key && i < slice.n && cut.keeps(key, tie_place(i, slice.n, large_index));
  }
  __device__ __forceinline__ void find_tie(uint32_t key, int32_t block, uint32_t nth) {
    uint32_t before = 0;
    slice.template for_vectors<1>(block, [&](int32_t i, const float(&v)[4]) {
      uint32_t mine = 0, total;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) mine += is_tie(key, v[j], i + j);
      uint32_t here = before + scan_warp(mine, total);
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) {
        if (!is_tie(key, v[j], i + j)) continue;
        if (here++ == nth) team.tell_all(&team.control().end, tie_place(i + j, slice.n, large_index) + 1);
      }
      before += total;
    });
  }
};

}  // namespace fulmen::cuda
