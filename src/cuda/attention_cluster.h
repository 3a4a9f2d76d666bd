// SPDX-License-Identifier: Apache-2.0
// Decode of so few tiles that several SMs must share each: a cluster of CTAs does, and merges in shared memory, where
// workers of their own would leave partial results in slots, wait for each other and read them back.
#pragma once
#include <fulmen/attention/call.h>

#include "src/cuda/device.h"

namespace fulmen::cuda {

// CTAs per worker of the plan.
int32_t cluster_size(const attention::PlanConfig& config, const Device& device);
// For a decode tile and lengths: makes clusters the plan's workers, where they are done no later than those it has.
void share_tiles(const attention::AttentionCall& call, const Device& device, attention::PlanConfig& config);
// The same for so many tiles of lengths that are not known: where clusters are on half of the SMs or more.
void share_tiles(const attention::AttentionCall& call, int64_t num_tiles, const Device& device,
                 attention::PlanConfig& config);

}  // namespace fulmen::cuda
