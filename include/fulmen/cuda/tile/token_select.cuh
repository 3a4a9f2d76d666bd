// SPDX-License-Identifier: Apache-2.0
// The k largest of a row, and going through them in index order.
#pragma once
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/scan.cuh>
#include <fulmen/cuda/tile/token_short.cuh>

namespace fulmen::cuda {

struct NoWeight {
  static constexpr bool kCounts = true;  // goals are numbers of tokens
  float none;
  __device__ __forceinline__ float operator()(float) const { return 1; }
};

// What for_listed can number: tokens of a row, entries of a list.
inline constexpr int32_t kNumberedRow = 2 * kTokenBins * 32, kMostNumbered = 2304;

// Where the search for the k largest of a row keeps its slice and, after select_cut, the last one of them.
template <TokenKey K>
using TokenSelect = TokenSearch<K, NoWeight>;

template <TokenKey K>
__device__ __forceinline__ void begin_select(const TokenSlice<K>& slice, bool large_index) {
  // all tokens are allowed, so keys from 1 up
  TokenSelect<K>::begin(slice, NoWeight{0}, false, large_index, 0, kNanKey);
  sync_cta();
}

template <TokenKey K>
__device__ __noinline__ void select_hard_row(int32_t k) {
  const TokenSlice<K> slice = TokenSelect<K>::shared().slice;
  TokenTeam<K.threads, K.cluster> team;
  team.sync();
  list_largest<K>(team, slice, uint32_t(k), 1, kNanKey, TokenSelect<K>::shared().large_index);
}

// Finds the cut; every CTA of the team knows. Where K.path is kList, the leader's list holds all that it keeps, and
// more.
template <TokenKey K>
__device__ __noinline__ void select_cut(int32_t k) {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Select = TokenSelect<K>;
  Team team;
  if constexpr (K.path == TokenPath::kSearch) {
    const TokenSlice<K> slice = Select::shared().slice;
    TokenTop<K> top;
    top.read(team, slice);
    if (threadIdx.x == 0) Select::shared().goal = uint64_t(k), Select::shared().top_key = top.key;
    Select::run(1, false);
  } else {
    TokenControl& c = team.control();
    bool listed;
    {
      const TokenSlice<K> slice = Select::shared().slice;
      TokenShort<K> few{team, slice, Select::shared().large_index};
      listed = few.counts(team, k) && few.run(few.sample(k), k, k, float_of(kLeastKey + 1), {});
    }
    if (!listed) select_hard_row<K>(k);
    if (team.rank() == 0) {
      const uint64_t last = TokenList<Team>::reach(int32_t(c.list_count), uint64_t(k), ListMass<NoWeight>{});
      if (threadIdx.x == 0) team.tell_all(&c.key, key_of_entry(last)), team.tell_all(&c.end, place_of_entry(last) + 1);
    }
    team.sync();
    Select::set_cut({c.key, c.end});
  }
}

// The k largest of n tokens at x, all of the row that the team has: as select_cut.
template <TokenKey K, class Team>
__device__ __forceinline__ void select_row(Team& team, const type_of<K.x>* x, int32_t n, int32_t k, bool large_index) {
  static_assert(TokenShort<K>::kMostListed <= kMostNumbered);
  {
    const TokenSlice<K> slice(team, x, n);
    slice.depart();
    clear_list(team);
    team.arrive();
    slice.arrive();
    team.wait();
    begin_select<K>(slice, large_index);
  }
  select_cut<K>(k);
  allow_successor();
}

// Leaves in the list what the cut keeps. Every thread of the leader calls.
template <TokenKey K, class Team>
__device__ __forceinline__ void keep_selected(Team& team) {
  const TokenCut cut = TokenSelect<K>::shared().cut;
  const uint64_t last = entry_of(cut.key, cut.end - 1);
  TokenList<Team>::compact(team, int32_t(team.control().list_count), [&](uint64_t entry) { return entry <= last; });
}

// f(number, index) for the leader's n entries, numbered in index order, by sorting them. Every thread of the leader
// calls.
template <class Team, class F>
__device__ __forceinline__ void for_sorted(int32_t n, int32_t row_len, bool large_index, const F& f) {
  uint64_t* list = TokenList<Team>::entries();
  sync_cta();
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) list[i] = list[i] << 32 | list[i] >> 32;
  sync_cta();
  TokenList<Team>::sort(n);
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads)
    f(large_index ? n - 1 - i : i, int32_t(tie_place(int32_t(list[i] >> 32), row_len, large_index)));
}

// The same by a bit for each place of a row of at most kNumberedRow tokens, counted; n <= kMostNumbered.
template <class Team, class F>
__device__ __forceinline__ void for_listed(Team& team, int32_t n, int32_t row_len, bool large_index, const F& f) {
  if (row_len > kNumberedRow) return for_sorted<Team>(n, row_len, large_index, f);
  constexpr int32_t kEach = 2 * kTokenBins / Team::kThreads;
  const uint64_t* list = TokenList<Team>::entries();
  uint32_t* bits = Team::template shared<uint32_t>(TokenLayout::kBins);
  uint32_t* before = Team::template shared<uint32_t>(TokenLayout::kList + 8 * kMostNumbered);  // a thread's words
  static_assert(TokenLayout::kSums == TokenLayout::kBins + 4 * kTokenBins &&
                TokenLayout::kList + 8 * kMostNumbered + 4 * Team::kThreads <= TokenLayout::kBlocks);
  const auto index_of = [&](int32_t i) {
    return int32_t(tie_place(int32_t(place_of_entry(list[i])), row_len, large_index));
  };
  sync_cta();
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < 2 * kTokenBins; i += Team::kThreads) bits[i] = 0;
  sync_cta();
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads)
    atomic_or(&bits[index_of(i) / 32], 1u << (index_of(i) % 32));
  sync_cta();
  uint32_t mine = 0, total;
#pragma unroll 1
  for (int32_t w = 0; w < kEach; ++w) mine += uint32_t(num_bits(bits[int32_t(threadIdx.x) * kEach + w]));
  before[threadIdx.x] = team.scan(mine, total);
  sync_cta();
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) {
    const int32_t index = index_of(i), word = index / 32;
    int32_t at = int32_t(before[word / kEach]) + num_bits(bits[word] & ((1u << (index % 32)) - 1));
#pragma unroll 1
    for (int32_t w = word / kEach * kEach; w < word; ++w) at += num_bits(bits[w]);
    f(at, index);
  }
}

// f(number, value, index) for the kept tokens, numbered in index order, by all CTAs. One team barrier inside.
template <class Team, class Slice, class F>
__device__ __forceinline__ void for_kept(Team& team, const Slice& slice, const TokenCut& cut, bool large_index,
                                         const F& f) {
  uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  const auto kept = [&](float x, int32_t i) {
    return i < slice.n && cut.keeps(key_of(x), tie_place(i, slice.n, large_index));
  };
  slice.for_blocks([&](int32_t b) {
    uint64_t num = 0;
    slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) num += kept(v[j], i + j);
    });
    team.tell_all_by_warp(blocks + slice.of_row(b), add_warp(num));
  });
  team.sync();
  slice.for_blocks([&](int32_t b) {
    const int32_t block = slice.of_row(b);
    if (blocks[block] == 0) return;
    uint64_t before = 0;
#pragma unroll 1
    for (int32_t i = warp_lane(); i < block; i += 32) before += blocks[i];
    int32_t at = int32_t(add_warp(before));
    slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
      int32_t mine = 0;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) mine += kept(v[j], i + j);
      if (ballot(mine > 0) == 0) return;
      const int32_t sum = sum_through(mine);
      int32_t to = at + sum - mine;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j)
        if (kept(v[j], i + j)) f(to++, v[j], i + j);
      at += shuffle_from(sum, 31);
    });
  });
}

}  // namespace fulmen::cuda
