// SPDX-License-Identifier: Apache-2.0
// The k largest of a row, and going through them in index order.
#pragma once
#include <fulmen/cuda/tile/token_short.cuh>

namespace fulmen::cuda {

struct NoWeight {
  static constexpr bool kCounts = true;  // goals are numbers of tokens
  float none;
  __device__ __forceinline__ float operator()(float) const { return 1; }
};

// Where the search for the k largest of a row keeps its slice and, after select_cut, the last one of them.
template <TokenKey K>
using TokenSelect = TokenSearch<K, NoWeight>;

template <TokenKey K>
__device__ __forceinline__ void begin_select(const TokenSlice<K>& slice, bool large_index) {
  // all tokens are allowed, so keys from 1 up
  TokenSelect<K>::begin(slice, NoWeight{0}, false, large_index, 0, kNanKey);
  sync_cta();
}

// Finds the cut; every CTA of the team knows. True: the leader's list holds all that it keeps, and more.
template <TokenKey K>
__device__ __noinline__ bool select_cut(int32_t k) {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Select = TokenSelect<K>;
  Team team;
  TokenControl& c = team.control();
  {
    const TokenSlice<K> slice = Select::shared().slice;
    TokenShort<K> few{team, slice, Select::shared().large_index};
    if (!few.counts(team, k) || !few.run(k, k, float_of(kLeastKey + 1), {})) {
      TokenTop<K> top;
      top.read(team, slice);
      if (threadIdx.x == 0) Select::shared().goal = uint64_t(k), Select::shared().top_key = top.key;
      Select::run(1, false);
      return false;
    }
  }
  if (team.rank() == 0) {
    const uint64_t last = TokenList<Team>::nth(int32_t(c.list_count), uint32_t(k));
    if (threadIdx.x == 0) team.tell_all(&c.key, key_of_entry(last)), team.tell_all(&c.end, place_of_entry(last) + 1);
  }
  team.sync();
  Select::set_cut({c.key, c.end});
  return true;
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
      int32_t sum = mine;
#pragma unroll
      for (int32_t d = 1; d < 32; d *= 2) {
        const int32_t other = shuffle_up(sum, d);
        if (warp_lane() >= d) sum += other;
      }
      int32_t to = at + sum - mine;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j)
        if (kept(v[j], i + j)) f(to++, v[j], i + j);
      at += shuffle_from(sum, 31);
    });
  });
}

}  // namespace fulmen::cuda
