// SPDX-License-Identifier: Apache-2.0
// What a row's tokens weigh together.
#pragma once
#include <fulmen/cuda/tile/token_list.cuh>

namespace fulmen::cuda {

// A token's weight, or 0 if it is dropped.
template <class Weight>
struct KeptWeight {
  Weight weight;
  float value;  // of the cut
  uint32_t end;
  float least;
  __device__ __forceinline__ KeptWeight(const Weight& w, TokenCut cut, float l)
      : weight(w), value(float_of(cut.key)), end(cut.end), least(l) {}
  __device__ __forceinline__ float operator()(float x, int32_t i) const {
    const float w = weight(x);
    return w >= least && (x > value || (x == value && uint32_t(i) < end)) ? w : 0;
  }
};

// The sums of weight(value, place) over the blocks, known to every CTA of the team. One team barrier inside.
template <class Team, class Slice, class Weight>
__device__ __forceinline__ void sum_blocks(Team& team, const Slice& slice, const Weight& weight) {
  uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  slice.for_blocks([&](int32_t b) {
    float sum = 0;
    slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) sum += weight(v[j], i + j);
    });
    team.tell_all_by_warp(blocks + slice.of_row(b), add_warp(fixed(sum)));
  });
  team.sync();
}

// Their sum, the same in all threads.
template <class Team, class Slice>
__device__ __forceinline__ uint64_t total_of(Team& team, const Slice& slice) {
  const uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  uint64_t total = 0;
#pragma unroll 1
  for (int32_t b = int32_t(threadIdx.x); b < slice.row_blocks; b += Team::kThreads) total += blocks[b];
  return team.sum(total);
}

}  // namespace fulmen::cuda
