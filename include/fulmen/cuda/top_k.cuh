// SPDX-License-Identifier: Apache-2.0
// top_k: a small k (K.path) through the leader's list; else a search for the cut, then the kept tokens in index order,
// and their sort where it is asked for. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/top_k.h>
#include <fulmen/cuda/tile/token_select.cuh>

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

// The leader's first k entries, sorted as asked.
template <class Team, class X>
__device__ __forceinline__ void write_list(Team& team, const X* row, const Answer<X>& answer, int32_t k, bool sorted) {
  if (!sorted)
    return for_listed(team, k, answer.n, answer.large_index,
                      [&](int32_t at, int32_t index) { answer.set(at, row[index], index); });
  TokenList<Team>::sort(k);
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < k; i += Team::kThreads) {
    const int32_t place = int32_t(place_of_entry(TokenList<Team>::entries()[i]));
    const int32_t index = int32_t(tie_place(place, answer.n, answer.large_index));
    answer.set(i, row[index], index);
  }
}

// Sorts the row's answer where it is: for more tokens than the list holds. See TokenList::sort_network.
template <class Team, class X>
__device__ __forceinline__ void sort_answer(const Answer<X>& answer, int32_t k) {
#pragma unroll 1
  for (int64_t size = 2; size < 2 * int64_t(k); size *= 2) {
#pragma unroll 1
    for (int64_t step = size / 2; step > 0; step /= 2) {
#pragma unroll 1
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
  select_row<K>(team, x, p.input.n, p.k, p.large_index);
  const Answer<X> answer{static_cast<X*>(p.values) + row * p.values_stride, p.indices, row * p.indices.stride,
                         p.input.n, p.large_index};
  if constexpr (K.path == TokenPath::kList) {
    if (team.rank() != 0) return;
    keep_selected<K>(team);
    write_list(team, x, answer, p.k, p.sorted);
  } else {
    const TokenSlice<K> slice = TokenSelect<K>::shared().slice;
    for_kept(team, slice, TokenSelect<K>::shared().cut, p.large_index,
             [&](int32_t at, float value, int32_t index) { answer.set(at, narrow<X>(value), index); });
    if (!p.sorted) return;
    team.sync();
    if (team.rank() == 0) sort_answer<Team>(answer, p.k);
  }
}

}  // namespace fulmen::cuda::top_k
