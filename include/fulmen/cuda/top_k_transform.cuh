// SPDX-License-Identifier: Apache-2.0
// top_k_transform: top_k's search of each row's window, then a look-up per token. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/top_k_transform.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_select.cuh>

namespace fulmen::cuda::top_k_transform {

struct Answer {
  const Params& p;
  int64_t row;

  // Place i of the window as the number at `at`; -1: none.
  __device__ __forceinline__ void set(int32_t at, int32_t i) const {
    p.out.set(row * p.out.stride + at, i < 0 ? -1 : token(i));
    if (p.places.data != nullptr) p.places.set(row * p.places.stride + at, i);
  }
  __device__ __forceinline__ int64_t token(int32_t i) const {
    if (p.page_table.data == nullptr) return i + p.offsets.of(row);
    const int64_t batch = p.row_to_batch.ids.data == nullptr ? row : p.row_to_batch.of(row);
    const int64_t token = i + p.page_starts.of(row);
    if (batch < 0 || batch >= p.batch_size || token < 0) return -1;
    int64_t page = token, rest = 0;
    if (p.page_size > 1) page = token / p.page_size, rest = token - page * p.page_size;
    if (page >= p.max_pages) return -1;
    page = p.page_table[batch * p.page_stride + page];
    return page < 0 ? -1 : page * p.page_size + rest;
  }
};

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  const Answer answer{p, row};
  const int64_t start = p.row_starts.of(row), length = p.lengths.of(row);
  const bool inside = start >= 0 && start <= p.input.n;
  const int32_t n = inside ? int32_t(math::max(int64_t(0), math::min(length, p.input.n - start))) : 0;
  if (n <= p.k) {
    allow_successor();
    const int32_t num = int32_t(team.size()) * Team::kThreads;
#pragma unroll 1
    for (int32_t i = int32_t(team.rank()) * Team::kThreads + int32_t(threadIdx.x); i < p.k; i += num)
      answer.set(i, i < n ? i : -1);
    return;
  }
  const X* x = static_cast<const X*>(p.input.data) + row * p.input.stride + start;
  select_row<K>(team, x, n, p.k, p.large_index);
  if constexpr (K.path == TokenPath::kList) {
    if (team.rank() != 0) return;
    keep_selected<K>(team);
    for_listed(team, p.k, n, p.large_index, [&](int32_t at, int32_t i) { answer.set(at, i); });
  } else {
    const TokenSlice<K> slice = TokenSelect<K>::shared().slice;
    for_kept(team, slice, TokenSelect<K>::shared().cut, p.large_index,
             [&](int32_t at, float, int32_t i) { answer.set(at, i); });
  }
}

}  // namespace fulmen::cuda::top_k_transform
