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

// After sum_blocks of the same weight: write(token) by one thread of the team.
template <class Team, class Slice, class Weight, class Write>
__device__ __forceinline__ void draw_along(Team& team, const Slice& slice, const Weight& weight, uint64_t total,
                                           double u, const Write& write) {
  const uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  const uint64_t target = target_of(u, total);
  const int32_t each = (slice.row_blocks + Team::kThreads - 1) / Team::kThreads;
  const int32_t first = int32_t(threadIdx.x) * each, last = math::min(slice.row_blocks, first + each);
  uint64_t sum = 0, all;
#pragma unroll 1
  for (int32_t b = first; b < last; ++b) sum += blocks[b];
  sum = team.scan(sum, all);
  TokenControl& c = team.control();
  for (int32_t b = first; b < last; ++b) {
    if (sum <= target && target < sum + blocks[b]) c.bin = uint32_t(b), c.slots[0] = target - sum;
    sum += blocks[b];
  }
  sync_cta();
  const int32_t block = int32_t(c.bin) - slice.first_block;
  if (block < 0 || block >= slice.num_blocks || warp_index() != 0) return;
  const uint64_t goal = c.slots[0];
  uint64_t before = 0;
  int32_t last_token = -1;
#pragma unroll 1
  for (int32_t s = 0; s < kTokenSteps; ++s) {
    float v[4];
    slice.fetch(block, s, v);
    const int32_t i = slice.at(block, s);
    uint64_t mine = 0;
    int32_t mine_last = -1;
#pragma unroll
    for (int32_t j = 0; j < 4; ++j) {
      const uint64_t w = fixed(weight(v[j], i + j));
      mine += w;
      if (w > 0) mine_last = i + j;
    }
    uint64_t all_of_step;
    const uint64_t through = before + scan_warp(mine, all_of_step) + mine;
    const uint32_t reached = ballot(through > goal), present = ballot(mine > 0);
    if (reached != 0) {
      if (warp_lane() == first_bit(reached)) {
        uint64_t sum_here = through - mine;
        for (int32_t j = 0; j < 4; ++j) {
          sum_here += fixed(weight(v[j], i + j));
          if (sum_here > goal) {
            write(i + j);
            break;
          }
        }
      }
      return;
    }
    if (present != 0) last_token = shuffle_from(mine_last, last_bit(present));
    before += all_of_step;
  }
  if (warp_lane() == 0) write(last_token < 0 ? 0 : last_token);  // rounding left the target beyond the block's own sum
}

}  // namespace fulmen::cuda
