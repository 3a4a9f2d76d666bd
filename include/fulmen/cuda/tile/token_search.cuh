// SPDX-License-Identifier: Apache-2.0
// Where a filter cuts a row: the shortest prefix of the order that reaches a number of tokens or a mass. Every round
// counts the tokens of a range of values in bins, bounds the masses of the bins by their edges, and goes on with the
// few bins that may hold the cut; the leader finds it in a range that fits into its list. Masses above the range are
// sums, not bounds. Rounds are bounded: ranges of keys shrink to one key, whose tokens are equal.
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
    TokenRange found{range.low, 0};
#pragma unroll 1
    for (int32_t end = last == kTokenBins - 1 ? 1 : 0; end < 2; ++end) {
      const uint32_t key = smallest_before(end == 0 ? last + 1 : first);
      (end == 0 ? found.low : found.high) = key - uint32_t(end);
    }
    return found;
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

// Counts and masses are integers: of tokens, of 2^-40 of the largest weight. A search lies in shared memory, so that
// its parts can be functions of their own: written by one thread, read by all after a barrier.
template <TokenKey K, class Weight>
struct TokenSearch {
  using Team = TokenTeam<K.threads, K.cluster>;
  using List = TokenList<Team>;
  using Slice = TokenSlice<K>;
  static constexpr uint32_t kEach = uint32_t(kTokenBins / K.threads);
  static constexpr int32_t kMostGathered = K.cluster ? kLocalList : kTokenList;  // one CTA may have them all
  Slice slice;
  Weight weight;
  bool keep_ties, large_index, goal_is_mass;
  TokenCut cut;  // what is kept so far
  uint64_t goal;
  uint32_t top_key;  // of the row
  // Of a search that runs.
  TokenRange range;
  uint64_t above;  // what the range's upper end leaves out
  uint32_t in_range;
  bool gathers;  // the next read brings the range to the list

  __device__ __forceinline__ bool by_mass() const { return !Weight::kCounts && goal_is_mass; }
  __device__ __forceinline__ static TokenSearch& shared() {
    static_assert(sizeof(TokenSearch) <= TokenLayout::kScan - TokenLayout::kSearch);
    return *Team::template shared<TokenSearch>(TokenLayout::kSearch);
  }
  // Nothing is cut yet.
  __device__ __forceinline__ static void begin(const Slice& slice, const Weight& weight, bool keep_ties,
                                               bool large_index, uint32_t least_key, uint32_t top_key) {
    if (threadIdx.x == 0)
      shared() = {slice, weight, keep_ties, large_index, false, {least_key, kAllTies}, 0, top_key, {}, 0, 0, false};
  }

  // A barrier at the end.
  __device__ __forceinline__ static void set_cut(const TokenCut& to) {
    if (threadIdx.x == 0) shared().cut = to;
    sync_cta();
  }
  // Narrows the cut to the goal; all that it keeps stays if that does not reach the goal. Below low_key no token can
  // decide. A team barrier at the start, one of the CTA at the end.
  __device__ __forceinline__ static void run(uint32_t low_key, bool by_value) {
    if (!narrows(low_key, by_value)) return;
    Team team;
    shared().cut_list(team);
  }

 private:
  // True: what is left of the goal is for the leader to find in its list.
  __device__ __forceinline__ static bool narrows(uint32_t low_key, bool by_value) {
    Team team;
    team.sync();
    TokenSearch& s = shared();
    if (threadIdx.x == 0)
      s.range = {math::max(low_key, s.cut.key), s.top_key}, s.above = 0, s.gathers = s.slice.n <= kMostGathered;
    sync_cta();
#pragma unroll 1
    for (int32_t round = 0; round < 32; ++round) {
      const bool gathers = s.gathers, one_key = s.range.low == s.range.high;
      read_range(by_value);
      if (gathers) {
        if (threadIdx.x == 0) s.goal = s.goal > s.above ? s.goal - s.above : 1;
        sync_cta();
        return true;
      }
      narrow(by_value);
      if (!s.gathers && (one_key || s.range.low == s.range.high)) {
        cut_ties();
        return false;
      }
      team.sync();  // all have read these bins
    }
    return false;
  }
  __device__ __forceinline__ TokenBins bins(bool by_value) const {
    return TokenBins(range, by_value && range.high == top_key);
  }

  // Reads the slice; a team barrier and one of the CTA at the end.
  __device__ __noinline__ static void read_range(bool by_value) {
    Team team;
    TokenSearch& s = shared();
    TokenControl& c = team.control();
    clear_bins<Team>();
    if (threadIdx.x == 0) c.first_upper = c.first_lower = c.last_bin = 0;
    sync_cta();
    const bool sums = s.by_mass() && s.range.high != s.top_key;
    uint64_t mine = s.pass(s.bins(by_value), s.gathers, sums);
    if (sums) {
      mine = team.team_sum(mine);
      if (threadIdx.x == 0) s.above = mine;
      sync_cta();
    } else {
      team.sync();
    }
  }

  // One read of the slice: the tokens of the range into bins or to the list; what those above it weigh.
  __device__ __forceinline__ uint64_t pass(const TokenBins& bins, bool gathers, bool sum_above) const {
    uint32_t* to = Team::template shared<uint32_t>(TokenLayout::kBins);
    uint64_t above = 0;
    const TokenCut allowed = cut;
    const Slice part = slice;
    const Weight weigh = weight;
    const bool descending = large_index;
    part.for_blocks([&](int32_t b) {
      float sum = 0;
      part.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
        uint32_t chosen = 0;
#pragma unroll
        for (int32_t j = 0; j < 4; ++j) {
          const uint32_t key = key_of(v[j]);
          const bool in = key >= bins.range.low && key <= bins.range.high && i + j < part.n;
          if (in && allowed.keeps(key, tie_place(i + j, part.n, descending))) chosen |= 1u << j;
          if (sum_above && key > bins.range.high) sum += weigh(v[j]);
        }
        if (chosen == 0) return;
        if (gathers) return List::push(part, b, chosen << (i / 128 % kTokenSteps * 4), descending);
#pragma unroll
        for (int32_t j = 0; j < 4; ++j)
          if ((chosen >> j & 1) != 0) atomic_add(&to[bins.of(key_of(v[j]))], 1u);
      });
      above += fixed(sum);
    });
    if (gathers) List::deliver(Team());
    return above;
  }

  // This thread's bins, of all CTAs together.
  __device__ __forceinline__ static void collect_bins(const Team& team) {
    const uint32_t* from = Team::template shared<uint32_t>(TokenLayout::kBins);
    uint32_t* num = Team::template shared<uint32_t>(TokenLayout::kSums);
    const uint32_t first = threadIdx.x * kEach;
    if constexpr (K.cluster) {
      uint32_t sums[kEach] = {};
#pragma unroll 1
      for (uint32_t r = 0; r < team.size(); ++r) {
#pragma unroll
        for (uint32_t i = 0; i < kEach; i += 4) {
          uint32_t far[4];
          load_remote_4(from + first + i, r, far);
#pragma unroll
          for (uint32_t j = 0; j < 4; ++j) sums[i + j] += far[j];
        }
      }
#pragma unroll
      for (uint32_t i = 0; i < kEach; ++i) num[first + i] = sums[i];
    } else {
#pragma unroll 1
      for (uint32_t i = first; i < first + kEach; ++i) num[i] = from[i];
    }
  }

  // The range becomes the part of it that the cut may be in; `above` grows by those above it where they are counted.
  // Barriers of the CTA at the end.
  __device__ __noinline__ static void narrow(bool by_value) {
    Team team;
    TokenSearch& s = shared();
    s.narrow_to(team, s.bins(by_value));
  }
  __device__ __forceinline__ void narrow_to(Team& team, const TokenBins& bins) {
    TokenControl& c = team.control();
    const uint32_t* num = Team::template shared<uint32_t>(TokenLayout::kSums);
    const uint32_t first = threadIdx.x * kEach;
    double upper = 0, lower = 0, total;
    const double needed = double(goal);
    collect_bins(team);
    uint32_t last_bin = 0, first_upper = 0, first_lower = 0;  // complements of the first ones; of this thread
#pragma unroll 1
    for (int32_t pass = 0; pass < 2; ++pass) {
#pragma unroll 1
      for (uint32_t i = first; i < first + kEach; ++i) {
        const uint32_t sum = num[i];
        if (sum == 0) continue;
        upper += double(sum) * (by_mass() ? double(weight(bins.upper(i))) * 0x1p40 : 1.0);
        lower += double(sum) * (by_mass() ? double(weight(bins.lower(i))) * 0x1p40 : 1.0);
        last_bin = i;
        if (pass == 1 && upper >= needed) first_upper = math::max(first_upper, ~i);
        if (pass == 1 && lower >= needed) first_lower = math::max(first_lower, ~i);
      }
      if (pass == 0) upper = double(above) + team.scan(upper, total), lower = double(above) + team.scan(lower, total);
    }
    last_bin = max_warp(last_bin), first_upper = max_warp(first_upper), first_lower = max_warp(first_lower);
    if (warp_lane() == 0) {
      atomic_max(&c.last_bin, last_bin), atomic_max(&c.first_upper, first_upper);
      atomic_max(&c.first_lower, first_lower);
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
    const TokenRange now = bins.keys(begin, last);
    sync_cta();  // all have read what was
    if (threadIdx.x == 0) {
      if (!by_mass()) above += sums >> 32;
      range = now, in_range = uint32_t(sums);
      gathers = in_range <= uint32_t(kMostGathered);
    }
    sync_cta();
  }

  // The leader finds the cut among the tokens of its list.
  __device__ __forceinline__ void cut_list(Team& team) const {
    TokenControl& c = team.control();
    if (team.rank() == 0) {
      const int32_t n = int32_t(c.list_count);
      uint64_t last = 0;
      if (n > 0)
        last = List::reach(n, math::min(goal, by_mass() ? goal : uint64_t(n)),
                           ListMass<Weight>{by_mass() ? Measure::kWeight : Measure::kOne, weight});
      if (threadIdx.x == 0 && n > 0) {
        team.tell_all(&c.key, key_of_entry(last));
        team.tell_all(&c.end, keep_ties ? kAllTies : place_of_entry(last) + 1);
      }
      if (threadIdx.x == 0 && n == 0) team.tell_all(&c.key, cut.key), team.tell_all(&c.end, cut.end);
    }
    team.sync();
    clear_list(team);  // barriers follow before another push
    set_cut({c.key, c.end});
  }

  // More equal tokens than the list holds: which of them is the last one kept.
  __device__ __noinline__ static void cut_ties() {
    Team team;
    shared().find_ties(team, shared().range.low, shared().in_range);
  }
  __device__ __forceinline__ void find_ties(Team& team, uint32_t key, uint32_t num) const {
    uint64_t needed = goal > above ? goal - above : 1;
    if (by_mass()) {
      const uint64_t each = math::max(uint64_t(1), fixed(weight(float_of(key))));
      needed = (needed + each - 1) / each;
    }
    const uint32_t wanted = needed >= num ? num : uint32_t(needed);
    const uint32_t nth = large_index ? num - wanted : wanted - 1;  // from the row's start
    uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
    const Slice part = slice;
    const Ties ties{key, key == cut.key ? cut.end : kAllTies, part.n, large_index};
    part.for_blocks([&](int32_t b) {
      uint32_t count = 0;
      part.template for_vectors<1>(b,
                                   [&](int32_t i, const float(&v)[4]) { count += uint32_t(num_bits(ties.of(i, v))); });
      team.tell_all_by_warp(blocks + part.of_row(b), uint64_t(add_warp(count)));
    });
    team.sync();
    uint64_t before = 0;
    int32_t block = 0;
#pragma unroll 1
    for (; block < slice.row_blocks - 1 && before + blocks[block] <= nth; ++block) before += blocks[block];
    block = part.of_slice(block);
    if (block >= 0 && warp_index() == 0) {
      uint32_t here = uint32_t(before);
      part.template for_vectors<1>(block, [&](int32_t i, const float(&v)[4]) {
        uint32_t mine = ties.of(i, v), total;
        const uint32_t first = here + scan_warp(uint32_t(num_bits(mine)), total);
        if (first <= nth && nth < first + uint32_t(num_bits(mine))) {
#pragma unroll 1
          for (uint32_t skipped = first; skipped < nth; ++skipped) mine &= mine - 1;
          team.tell_all(&team.control().end, tie_place(i + first_bit(mine), part.n, large_index) + 1);
        }
        here += total;
      });
    }
    team.sync();
    set_cut({key, keep_ties ? kAllTies : team.control().end});
  }
  // The tokens of one key that the cut so far keeps.
  struct Ties {
    uint32_t key, end;
    int32_t n;
    bool large_index;
    __device__ __forceinline__ uint32_t of(int32_t i,
                                           const float (&v)[4]) const {  // a bit each, of neighbours from i on
      uint32_t bits = 0;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j)
        if (key_of(v[j]) == key && i + j < n && tie_place(i + j, n, large_index) < end) bits |= 1u << j;
      return bits;
    }
  };
};

}  // namespace fulmen::cuda
