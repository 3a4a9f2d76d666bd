// SPDX-License-Identifier: Apache-2.0
// A short list of tokens in the leader's shared memory (rank 0 of the team): pushed by all CTAs, sorted by the leader.
// An entry's order is that of tokens: value descending, then place ascending.
#pragma once
#include <fulmen/cuda/tile/token_top.cuh>

namespace fulmen::cuda {

__device__ __forceinline__ uint64_t entry_of(uint32_t key, uint32_t place) { return uint64_t(~key) << 32 | place; }
__device__ __forceinline__ uint32_t key_of_entry(uint64_t entry) { return ~uint32_t(entry >> 32); }
__device__ __forceinline__ uint32_t place_of_entry(uint64_t entry) { return uint32_t(entry); }

template <class Team>
struct TokenList {
  __device__ __forceinline__ static uint64_t* entries() { return Team::template shared<uint64_t>(TokenLayout::kList); }

  // Each CTA collects what it chooses here first, where the bins are otherwise.
  __device__ __forceinline__ static uint64_t* local() { return Team::template shared<uint64_t>(TokenLayout::kBins); }

  // Collects the lane's chosen elements; `chosen` has a bit for each of its four keys. All lanes of the warp call. What
  // exceeds the list is counted alone.
  __device__ __forceinline__ static void push(const Team& team, uint32_t chosen, const uint32_t (&key)[4],
                                              const uint32_t (&place)[4]) {
#pragma unroll
    for (int32_t j = 0; j < 4; ++j) {
      const bool mine = (chosen >> j & 1) != 0;
      const uint32_t all = ballot(mine);
      if (all == 0) continue;
      uint32_t at = 0;
      if (warp_lane() == 0) at = atomic_add_local(&team.control().local_count, uint32_t(num_bits(all)));
      at = shuffle_from(at, 0) + uint32_t(num_bits(all & ((1u << warp_lane()) - 1)));
      if (mine && at < uint32_t(kTokenList)) local()[at] = entry_of(key[j], place[j]);
    }
  }
  // Brings what all CTAs have collected to the leader, and the count to every CTA's control. A team barrier must
  // follow.
  __device__ __forceinline__ static void deliver(const Team& team) {
    TokenControl& c = team.control();
    sync_cta();
    const uint32_t n = c.local_count;
    if (warp_index() == 0) {
      uint32_t at = 0;
      if (uint32_t(warp_lane()) < team.size()) at = atomic_add_remote(&c.list_count, uint32_t(warp_lane()), n);
      if (warp_lane() == 0) c.place = at;
    }
    sync_cta();
    const uint32_t first = c.place;
    for (uint32_t i = threadIdx.x; i < math::min(n, uint32_t(kTokenList)); i += uint32_t(Team::kThreads))
      if (first + i < uint32_t(kTokenList)) store_remote(entries() + first + i, 0, local()[i]);
  }

  // Sorts the first n entries, ascending. Every thread of the leader calls; a barrier stands at the end.
  __device__ __noinline__ static void sort(int32_t n) {
    if (n <= math::min(256, Team::kThreads))
      sort_by_rank(n);
    else
      sort_network(n);
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
    for (int32_t size = 2; size < 2 * n; size *= 2) {
      for (int32_t step = size / 2; step > 0; step /= 2) {
        const bool flip = step == size / 2;
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

// The element's place in the order among equals.
__device__ __forceinline__ uint32_t tie_place(int32_t i, int32_t n, bool large_index) {
  return uint32_t(large_index ? n - 1 - i : i);
}

// What a filter keeps: keys above `key`, and those equal to it whose place among equals is before `end`.
struct TokenCut {
  uint32_t key, end;
  __device__ __forceinline__ bool keeps(uint32_t k, uint32_t place) const {
    return k > key || (k == key && place < end);
  }
};
inline constexpr uint32_t kAllTies = 0xffffffffu;

// The list gets the allowed tokens of the range. If sum_above, returns what the lane's tokens above the range weigh.
template <class Team, class Slice, class Weight>
__device__ __forceinline__ uint64_t gather(Team& team, const Slice& slice, const TokenRange& range,
                                           const TokenCut& allowed, bool large_index, bool sum_above,
                                           const Weight& weight) {
  uint64_t above = 0;
  const float low = float_of(range.low);
  slice.for_blocks([&](int32_t b) {
    float sum = 0;
    uint32_t some = 0, step = 0;  // the steps of which this lane has tokens
    slice.for_vectors(b, [&](int32_t, const float(&v)[4]) {
      bool none = true;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) none = none && v[j] < low;
      some |= none ? 0u : 1u << step;
      ++step;
    });
    step = 0;
    slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
      if (ballot((some >> step++ & 1) != 0) == 0) return;
      uint32_t key[4], place[4], chosen = 0;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) {
        key[j] = key_of(v[j]), place[j] = tie_place(i + j, slice.n, large_index);
        const bool in = key[j] >= range.low && key[j] <= range.high && i + j < slice.n;
        if (in && allowed.keeps(key[j], place[j])) chosen |= 1u << j;
        if (sum_above && key[j] > range.high) sum += weight(v[j]);
      }
      TokenList<Team>::push(team, chosen, key, place);
    });
    above += fixed(sum);
  });
  TokenList<Team>::deliver(team);
  return above;
}

}  // namespace fulmen::cuda
