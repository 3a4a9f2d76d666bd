// SPDX-License-Identifier: Apache-2.0
// A short list of tokens in the leader's shared memory (rank 0 of the team): pushed by all CTAs, sorted by the leader.
// An entry's order is that of tokens: value descending, then place ascending.
#pragma once
#include <fulmen/cuda/tile/token_top.cuh>

namespace fulmen::cuda {

__device__ __forceinline__ uint64_t entry_of(uint32_t key, uint32_t place) { return uint64_t(~key) << 32 | place; }
__device__ __forceinline__ uint32_t key_of_entry(uint64_t entry) { return ~uint32_t(entry >> 32); }
__device__ __forceinline__ uint32_t place_of_entry(uint64_t entry) { return uint32_t(entry); }

// The element's place in the order among equals.
__device__ __forceinline__ uint32_t tie_place(int32_t i, int32_t n, bool large_index) {
  return uint32_t(large_index ? n - 1 - i : i);
}

// What an entry of a list measures: 1, or its token's weight. by_place: the words of the entries are swapped, so that
// their order is that of places, and the first one is the value's complement.
enum class Measure : int32_t { kOne, kWeight, kWeightByPlace };
template <class Weight>
struct ListMass {
  Measure measure;
  Weight weight;
  __device__ __forceinline__ uint64_t operator()(uint64_t entry) const {
    if (Weight::kCounts) return 1;
    return fixed(weight(float_of(~uint32_t(measure == Measure::kWeight ? entry >> 32 : entry))));
  }
};

template <class Team>
struct TokenList {
  __device__ __forceinline__ static uint64_t* entries() { return Team::template shared<uint64_t>(TokenLayout::kList); }

  // Where a CTA of a cluster collects what it chooses first; the bins' memory.
  __device__ __forceinline__ static uint64_t* local() { return Team::template shared<uint64_t>(TokenLayout::kBins); }

  // Collects the chosen ones of this lane's elements of a block, a bit each. Their values are read again: they are few,
  // and what stands in registers has no number. What exceeds the list is counted alone.
  template <class Slice>
  __device__ __forceinline__ static void push(const Slice& slice, int32_t block, uint32_t chosen, bool large_index) {
    TokenControl& c = Team::control();
    uint64_t* to = Team::kClusters ? local() : entries();
    constexpr uint32_t kMost = Team::kClusters ? kLocalList : kTokenList;
    uint32_t at = atomic_add_local(Team::kClusters ? &c.local_count : &c.list_count, uint32_t(num_bits(chosen)));
#pragma unroll 1
    for (; chosen != 0 && at < kMost; chosen &= chosen - 1, ++at) {
      const int32_t bit = first_bit(chosen);
      to[at] = entry_of(key_of(slice.value(block, bit)),
                        tie_place(slice.at(block, bit / 4) + bit % 4, slice.n, large_index));
    }
  }
  // Brings what all CTAs have collected to the leader, and the count to every CTA's control. A team barrier must
  // follow.
  __device__ __forceinline__ static void deliver(const Team& team) {
    if constexpr (!Team::kClusters) return;
    TokenControl& c = team.control();
    sync_cta();
    const uint32_t n = c.local_count;
    if (warp_index() == 0) {
      uint32_t at = 0;
      const uint32_t counted = n <= uint32_t(kLocalList) ? n : uint32_t(kTokenList) + 1;
      if (uint32_t(warp_lane()) < team.size()) at = atomic_add_remote(&c.list_count, uint32_t(warp_lane()), counted);
      if (warp_lane() == 0) c.place = at;
    }
    sync_cta();
    const uint32_t first = c.place;
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < math::min(n, uint32_t(kLocalList)); i += uint32_t(Team::kThreads))
      if (first + i < uint32_t(kTokenList)) store_remote(entries() + first + i, 0, local()[i]);
  }

  // Sorts the first n entries, ascending. Every thread of the leader calls; a barrier stands at the end.
  __device__ __noinline__ static void sort(int32_t n) {
    if (n <= math::min(256, Team::kThreads))
      sort_by_rank(n);
    else
      sort_network(n);
  }

  // A key that at least k of the list's n entries reach, and few more of them: the bin of the k-th. Every thread of the
  // CTA calls; barriers at both ends.
  __device__ __noinline__ static uint32_t bound(int32_t n, uint32_t k) {
    Team team;
    const uint64_t* list = entries();
    uint32_t* bins = Team::template shared<uint32_t>(TokenLayout::kBins);
    sync_cta();
    uint32_t high = 0, not_low = 0;
#pragma unroll 1
    for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) {
      const uint32_t key = key_of_entry(list[i]);
      high = math::max(high, key), not_low = math::max(not_low, ~key);
    }
    team.max_of_both(high, not_low, [] { clear_bins<Team>(); });
    TokenRange range{~not_low, high};
#pragma unroll 1
    for (;;) {
      const int32_t shift = range.shift();
#pragma unroll 1
      for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) {
        const uint32_t key = key_of_entry(list[i]);
        if (key >= range.low && key <= range.high) atomic_add(&bins[(range.high - key) >> shift], 1u);
      }
      sync_cta();
      uint32_t bin, before;
      find_bin(team, k, bin, before);
      k -= before;
      range.high -= bin << shift;
      range.low = math::max(range.low, range.high - ((1u << shift) - 1));
      if (shift <= 15) return range.low;  // within 2^-8 of the value
      sync_cta();
      clear_bins<Team>();
      sync_cta();
    }
  }

  // What the list's n entries measure. Every thread of the CTA calls; barriers at both ends.
  template <class Mass>
  __device__ __forceinline__ static uint64_t mass_of_list(int32_t n, const Mass& mass) {
    uint64_t sum = 0;
    sync_cta();
#pragma unroll 1
    for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) sum += mass(entries()[i]);
    Team team;
    sum = team.sum(sum);
    sync_cta();
    return sum;
  }

  // The entry at which the running sum of the entries' measure, or all of it if it is less, reaches goal > 0. Every
  // thread of the CTA calls; barriers at both ends.
  template <class Weight>
  __device__ __noinline__ static uint64_t reach(int32_t n, uint64_t goal, ListMass<Weight> mass) {
    if (Weight::kCounts || mass.measure == Measure::kOne)
      return reaching<uint32_t>(n, uint32_t(goal), [](uint64_t) { return 1u; });
    const uint64_t sum = mass_of_list(n, mass);
    return sum == 0 ? entries()[0] : reaching<uint64_t>(n, math::min(goal, sum), mass);
  }

  // The entry at which the running sum of mass(entry) > 0 reaches `goal`, at least 1 and at most the list's sum. The
  // range of entries is narrowed by bins until few are left.
  template <class Bin, class Mass>
  __device__ __forceinline__ static uint64_t reaching(int32_t n, Bin goal, const Mass& mass) {
    Team team;
    TokenControl& c = team.control();
    const uint64_t* list = entries();
    Bin* bins = Team::template shared<Bin>(TokenLayout::kBins);
    sync_cta();
    uint32_t low = 0, high = 0;
#pragma unroll 1
    for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) {
      const uint32_t x = uint32_t(list[i] >> 32);
      low = math::max(low, ~x), high = math::max(high, x);
    }
    uint64_t first = uint64_t(~team.max(low)) << 32, last = uint64_t(team.max(high)) << 32 | 0xffffffffu;
    int32_t shift;
    do {
      const uint32_t width = uint32_t((last - first) >> 32);
      shift = math::max(0, (width != 0 ? 32 + last_bit(width) : last_bit(uint32_t(last - first) | 1)) - 10);
      clear_bins<Team, Bin>();
      sync_cta();
      if (threadIdx.x == 0) c.local_count = 0;
#pragma unroll 1
      for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads)
        if (list[i] >= first && list[i] <= last)
          atomic_add(&bins[uint32_t((list[i] - first) >> shift)], Bin(mass(list[i])));
      sync_cta();
      uint32_t bin;
      Bin before;
      find_bin(team, goal, bin, before);
      goal -= before;
      first += uint64_t(bin) << shift;
      last = first + ((uint64_t(1) << shift) - 1);
#pragma unroll 1
      for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) {
        if (list[i] < first || list[i] > last) continue;
        const uint32_t at = atomic_add_local(&c.local_count, 1);
        if (at < kFew) few()[at] = list[i];
      }
      sync_cta();
    } while (shift > 0 && c.local_count > kFew);
    if (threadIdx.x < c.local_count) {
      const uint64_t mine = few()[threadIdx.x];
      Bin sum = 0;
#pragma unroll 1
      for (uint32_t i = 0; i < c.local_count; ++i) sum += few()[i] < mine ? Bin(mass(few()[i])) : 0;
      if (sum < goal && goal <= sum + Bin(mass(mine))) c.entry = mine;
    }
    sync_cta();
    return c.entry;
  }
  static constexpr uint32_t kFew = 64;
  __device__ __forceinline__ static uint64_t* few() { return Team::template shared<uint64_t>(TokenLayout::kScan); }

  // Keeps those of the leader's n entries for which keeps(entry) holds, in place; the number of them. Barriers at both
  // ends.
  template <class Keeps>
  __device__ __forceinline__ static int32_t compact(const Team& team, int32_t n, const Keeps& keeps) {
    uint64_t* list = entries();
    TokenControl& c = team.control();
    sync_cta();
    if (threadIdx.x == 0) c.local_count = 0;
#pragma unroll 1
    for (int32_t from = 0; from < n; from += Team::kThreads) {  // what is written has been read
      const int32_t i = from + int32_t(threadIdx.x);
      const uint64_t entry = i < n ? list[i] : 0;
      sync_cta();
      if (i < n && keeps(entry)) list[atomic_add_local(&c.local_count, 1)] = entry;
    }
    sync_cta();
    return int32_t(c.local_count);
  }

 private:
  // Each entry's place is how many are smaller. As many threads per entry as there are, up to a warp.
  __device__ __forceinline__ static void sort_by_rank(int32_t n) {
    uint64_t* list = entries();
    int32_t log_share = 5;
    while (log_share > 0 && n << log_share > Team::kThreads) --log_share;
    const int32_t share = 1 << log_share, i = int32_t(threadIdx.x) >> log_share;
    const uint64_t mine = i < n ? list[i] : 0;
    int32_t rank = 0;
    if (int32_t(threadIdx.x & ~31u) >> log_share < n) {
#pragma unroll 4
      for (int32_t k = int32_t(threadIdx.x) & (share - 1); k < n; k += share) rank += list[k] < mine;
#pragma unroll 1
      for (int32_t mask = 1; mask < share; mask *= 2) rank += shuffle_xor(rank, mask);
    }
    sync_cta();
    if (i < n && (int32_t(threadIdx.x) & (share - 1)) == 0) list[rank] = mine;
    sync_cta();
  }

  // Bitonic, in the form whose comparators all put the smaller entry first, so that any n will do.
  __device__ __forceinline__ static void sort_network(int32_t n) {
    uint64_t* list = entries();
#pragma unroll 1
    for (int32_t size = 2; size < 2 * n; size *= 2) {
#pragma unroll 1
      for (int32_t step = size / 2; step > 0; step /= 2) {
        const bool flip = step == size / 2;
#pragma unroll 1
        for (int32_t t = int32_t(threadIdx.x); t < (n + 1) / 2 + step; t += Team::kThreads) {
          const int32_t i = t + (t & ~(step - 1)), k = flip ? i ^ (size - 1) : i + step;  // powers of two
          if (k >= n) continue;
          const uint64_t a = list[i], b = list[k];
          if (b < a) list[i] = b, list[k] = a;
        }
        sync_cta();
      }
    }
  }
};

// Empties the list of every CTA; a team barrier must stand between this and the first push.
template <class Team>
__device__ __forceinline__ void clear_list(Team& team) {
  if (threadIdx.x == 0) team.control().list_count = team.control().local_count = 0;
}

// What a filter keeps: keys above `key`, and those equal to it whose place among equals is before `end`.
struct TokenCut {
  uint32_t key, end;
  __device__ __forceinline__ bool keeps(uint32_t k, uint32_t place) const {
    return k > key || (k == key && place < end);
  }
};
inline constexpr uint32_t kAllTies = 0xffffffffu;
__device__ __forceinline__ TokenCut cut_after(uint64_t entry, bool keep_ties) {
  return {key_of_entry(entry), keep_ties ? kAllTies : place_of_entry(entry) + 1};
}

}  // namespace fulmen::cuda
