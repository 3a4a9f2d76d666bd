// SPDX-License-Identifier: Apache-2.0
// top_k: a small k through the leader's sorted list; else a search for the cut, then the kept tokens in index order,
// and their sort where it is asked for. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/top_k.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_filter_row.cuh>

namespace fulmen::cuda::top_k {

// Where a row's answer goes.
template <class X>
struct Answer {
  X* values;
  TokenOutput indices;
  int64_t first;  // of the row's indices
  int32_t n;
  bool large_index;

  __device__ __forceinline__ void set(int32_t at, X value, int32_t index) const {
    values[at] = value;
    indices.set(first + at, index);
  }
  __device__ __forceinline__ int32_t index(int32_t at) const {
    return indices.wide ? int32_t(static_cast<const int64_t*>(indices.data)[first + at])
                        : static_cast<const int32_t*>(indices.data)[first + at];
  }
  __device__ __forceinline__ uint64_t entry(int32_t at) const {
    return entry_of(key_of(widen(values[at])), tie_place(index(at), n, large_index));
  }
};

struct NoWeight {  // goals are numbers of tokens
  __device__ __forceinline__ float operator()(float) const { return 1; }
};

struct Goal {
  int32_t k;
  __device__ __forceinline__ double operator()(bool) const { return k; }
};

// The first k entries of the leader's list, sorted as asked.
template <class Team, class X>
__device__ __forceinline__ void write_list(Team&, const X* row, const Answer<X>& answer, int32_t k, bool sorted) {
  uint64_t* list = TokenList<Team>::entries();
  if (!sorted) {
    for (int32_t i = int32_t(threadIdx.x); i < k; i += Team::kThreads)
      list[i] = uint64_t(tie_place(int32_t(place_of_entry(list[i])), answer.n, answer.large_index));
    sync_cta();
    TokenList<Team>::sort(k);
  }
  for (int32_t i = int32_t(threadIdx.x); i < k; i += Team::kThreads) {
    const int32_t place = int32_t(place_of_entry(list[i]));
    const int32_t index = sorted ? int32_t(tie_place(place, answer.n, answer.large_index)) : place;
    answer.set(i, row[index], index);
  }
}

// The kept tokens in index order, by all CTAs. One team barrier inside.
template <class Team, class Slice, class X>
__device__ __forceinline__ void write_in_order(Team& team, const Slice& slice, const TokenCut& cut,
                                               const Answer<X>& answer) {
  uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  const auto kept = [&](float x, int32_t i) {
    return i < slice.n && cut.keeps(key_of(x), tie_place(i, slice.n, answer.large_index));
  };
  slice.for_blocks([&](int32_t b) {
    uint64_t num = 0;
    slice.for_vectors(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) num += kept(v[j], i + j);
    });
    team.tell_all_by_warp(blocks + slice.first_block + b, add_warp(num));
  });
  team.sync();
  slice.for_blocks([&](int32_t b) {
    const int32_t block = slice.first_block + b;
    if (blocks[block] == 0) return;
    uint64_t before = 0;
    for (int32_t i = warp_lane(); i < block; i += 32) before += blocks[i];
    int32_t at = int32_t(add_warp(before));
    slice.for_vectors(b, [&](int32_t i, const float(&v)[4]) {
      int32_t mine = 0;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) mine += kept(v[j], i + j);
      int32_t sum = mine;
#pragma unroll
      for (int32_t d = 1; d < 32; d *= 2) {
        const int32_t other = shuffle_up(sum, d);
        if (warp_lane() >= d) sum += other;
      }
      int32_t to = at + sum - mine;
#pragma unroll
      for (int32_t j = 0; j < 4; ++j)
        if (kept(v[j], i + j)) answer.set(to++, slice.row[i + j], i + j);
      at += shuffle_from(sum, 31);
    });
  });
}

// Sorts the row's answer where it is: for more tokens than the list holds. See TokenList::sort_network.
template <class Team, class X>
__device__ __forceinline__ void sort_answer(const Answer<X>& answer, int32_t k) {
  for (int64_t size = 2; size < 2 * int64_t(k); size *= 2) {
    for (int64_t step = size / 2; step > 0; step /= 2) {
      for (int64_t t = int64_t(threadIdx.x); t < (k + 1) / 2 + step; t += Team::kThreads) {
        const int64_t i = t + (t & ~(step - 1)), j = step == size / 2 ? i ^ (size - 1) : i + step;  // powers of two
        if (j >= k || answer.entry(int32_t(i)) < answer.entry(int32_t(j))) continue;
        const X value = answer.values[i], other = answer.values[j];
        const int32_t index = answer.index(int32_t(i)), other_index = answer.index(int32_t(j));
        answer.set(int32_t(i), other, other_index), answer.set(int32_t(j), value, index);
      }
      sync_cta();
    }
  }
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  const X* x = static_cast<const X*>(p.input.data) + row * p.input.stride;
  const TokenSlice<K> slice(team, x, p.input.n);
  const Answer<X> answer{static_cast<X*>(p.values) + row * p.values_stride, p.indices, row * p.indices.stride,
                         p.input.n, p.large_index};
  slice.depart();
  clear_list(team);
  team.arrive();
  slice.arrive();
  team.wait();
  TokenTop<K> top;
  top.read(team, slice);
  allow_successor();

  // All tokens are allowed, so keys from 1 up; the list's bound is not 0 either.
  const NoWeight weight;
  TokenSearch<K, TokenSlice<K>, NoWeight, Goal> search{team, slice, weight, {p.k}, false, p.large_index, {0, kAllTies}};
  const uint32_t low = math::max(1u, top.bound(team, uint32_t(p.k)));
  uint32_t list_low = p.k <= int32_t(kMostListed) || p.input.n <= kTokenList ? low : 0;
#pragma unroll 1
  for (;;) {
    search.run(top.key, low, list_low, false);
    if (search.listed || !p.sorted || p.k > kTokenList) break;
    list_low = search.cut.key;  // now they fit
    clear_list(team);
    team.sync();
  }
  if (search.listed) {
    if (team.rank() == 0) write_list(team, x, answer, p.k, p.sorted);
    return;
  }
  const TokenCut cut = search.cut;
  write_in_order(team, slice, cut, answer);
  if (!p.sorted) return;
  team.sync();
  if (team.rank() == 0) sort_answer<Team>(answer, p.k);
}

}  // namespace fulmen::cuda::top_k
