// SPDX-License-Identifier: Apache-2.0
// Decode of so few tiles that several SMs must share each: a cluster of CTAs does, and merges in shared memory, where
// workers of their own would leave partial results in slots, wait for each other and read them back.
#pragma once
#include <fulmen/attention/call.h>

#include "src/cuda/device.h"

namespace fulmen::cuda {

// Rows of the tiles that one request of more rows than that is cut into where there are few of them; 0: larger ones.
// Their keys are read again for each, from L2, but a large tile's splits make a merge that takes longer.
int32_t small_tile(int64_t rows, int64_t num_heads, int32_t num_sms);
// CTAs per worker of the plan.
int32_t cluster_size(const attention::PlanConfig& config, const Device& device);
// For a decode tile and lengths: makes clusters the plan's workers, where they are done no later than those it has.
void share_tiles(const attention::AttentionCall& call, const Device& device, attention::PlanConfig& config);
// The same for so many tiles of lengths that are not known: where clusters are on half of the SMs or more.
void share_tiles(const attention::AttentionCall& call, int64_t num_tiles, const Device& device,
                 attention::PlanConfig& config);

}  // namespace fulmen::cuda
