// SPDX-License-Identifier: Apache-2.0
// Draws a token in index order: by the sums of the row's blocks, then along one block; or from the leader's list.
#pragma once
#include <fulmen/core/philox.h>
#include <fulmen/cuda/tile/token_sum.cuh>

namespace fulmen::cuda {

__device__ __forceinline__ double random_of(const TokenRandom& r, int64_t row, int64_t step, int32_t half) {
  return uniform(philox(r.seed.of(row), r.offset.of(row) + uint64_t(step), r.own_seed ? 0 : uint64_t(row)), half);
}

// The number of which a running sum must be above, below the total.
__device__ __forceinline__ uint64_t target_of(double u, uint64_t total) {
  const uint64_t target = uint64_t(u * double(total));
  return target < total ? target : total - 1;
}

// write(the first token of the block at which the running sum exceeds goal). A warp calls.
template <class Slice, class Weight, class Write>
__device__ __forceinline__ void walk_block(const Slice& slice, int32_t block, const Weight& weight, uint64_t goal,
                                           const Write& write) {
  uint64_t weights[4], mine, kept = 0, before = 0, total;  // kept: lane s: what step s holds
  int32_t step = 0;
#pragma unroll 1
  for (int32_t turn = 0; turn <= kTokenSteps; ++turn) {  // the last turn reads the chosen step again
    if (turn == kTokenSteps) {
      before = scan_warp(kept, total);
      // where rounding leaves the goal beyond the block's own sum, the last token
      const uint32_t reaching = ballot(kept > 0 && before + kept > goal), present = ballot(kept > 0);
      step = reaching != 0 ? first_bit(reaching) : present != 0 ? last_bit(present) : 0;
    } else {
      step = turn;
    }
    float v[4];
    slice.fetch(block, step, v);
    mine = 0;
#pragma unroll
    for (int32_t j = 0; j < 4; ++j) weights[j] = fixed(weight(v[j], slice.at(block, step) + j)), mine += weights[j];
    if (turn == kTokenSteps) break;
    const uint64_t all = add_warp(mine);
    if (warp_lane() == turn) kept = all;
  }
  uint64_t sum = shuffle_from(before, step) + scan_warp(mine, total);
  const uint32_t chosen = ballot(mine > 0 && sum + mine > goal), some = ballot(mine > 0);
  if (warp_lane() != (chosen != 0 ? first_bit(chosen) : some != 0 ? last_bit(some) : 0)) return;
  int32_t token = 0;
#pragma unroll
  for (int32_t j = 0; j < 4; ++j) {
    if (weights[j] == 0 || (chosen != 0 && sum > goal)) continue;
    token = slice.at(block, step) + j, sum += weights[j];
  }
  write(token);
}

// The block in which the running sum of the blocks' masses exceeds u times their total, and by how much the sum before
// it falls short of that. A warp calls.
struct BlockGoal {
  int32_t block;
  uint64_t goal;
};
__device__ __forceinline__ BlockGoal find_block(const uint64_t* blocks, int32_t num, double u) {
  const int32_t each = (num + 31) / 32;
  const int32_t first = warp_lane() * each, last = math::min(num, first + each);
  uint64_t mine = 0, total;
#pragma unroll 1
  for (int32_t b = first; b < last; ++b) mine += blocks[b];
  uint64_t before = scan_warp(mine, total);
  const uint64_t target = target_of(u, total);
  const uint32_t owner = uint32_t(first_bit(ballot(before <= target && target < before + mine)));
  int32_t block = first;
  if (uint32_t(warp_lane()) == owner) {
#pragma unroll 1
    for (; before + blocks[block] <= target; ++block) before += blocks[block];
  }
  return {shuffle_from(block, int32_t(owner)), target - shuffle_from(before, int32_t(owner))};
}

// After sum_blocks of the same weight: write(token) by one thread of the team. The first warp of each CTA finds the
// block; that of the CTA that owns it walks along it.
template <class Team, class Slice, class Weight, class Write>
__device__ __forceinline__ void draw_along(Team&, const Slice& slice, const Weight& weight, double u,
                                           const Write& write) {
  if (warp_index() != 0) return;
  BlockGoal g = find_block(Team::template shared<uint64_t>(TokenLayout::kBlocks), slice.row_blocks, u);
  g.block = slice.of_slice(g.block);
  if (g.block >= 0) walk_block(slice, g.block, weight, g.goal, write);
}

}  // namespace fulmen::cuda
