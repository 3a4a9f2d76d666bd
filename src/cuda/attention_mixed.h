// SPDX-License-Identifier: Apache-2.0
// Batches of requests of few rows (decode), which wait for memory, and of many (prefill), which multiply: a plan of two
// lists, each in tiles of its own, launched one beside the other (docs/decisions/mixed_batches.md).
#pragma once
#include <fulmen/attention/call.h>

#include <algorithm>

#include "src/cuda/device.h"

namespace fulmen::cuda {

// Completes call.config for a batch whose lengths are known. False: one list is better, nothing was set.
bool configure_mixed(const attention::AttentionCall& call, const Device& device);

// Of a row of many and a key, in keys that a request of few rows reads.
double many_cost(int64_t kv_bytes);

// The same for a call of few rows, call.beside being one of many: few_workers is set, or it is better run by itself.
bool configure_beside(const attention::AttentionCall& call, const Device& device);
bool shape_beside(const attention::AttentionCall& call, const Device& device, attention::PlanConfig& config);

// CTAs of a plan's kernel that an SM holds.
inline int32_t ctas_on_sm(const attention::PlanConfig& config, const Device& device) {
  return std::max(1, config.num_workers / device.num_sms);
}
// Microseconds of one SM that a call of many rows takes where its tables are full, about.
int64_t likely_us(const attention::AttentionCall& call, const attention::PlanConfig& config);
// Whether a call of this plan is one of many rows, which others may run beside.
bool may_run_beside(const attention::PlanHeader& plan);

inline int32_t most_few_workers(const Device& device) { return std::max(1, device.num_sms / 2); }
// The same for a batch of these shapes, whose lengths a device will know.
bool shape_mixed(const attention::AttentionCall& call, const Device& device, attention::PlanConfig& config);
// Whether so many requests share the rows that most have one each: some other may have almost all.
bool expects_one_long(const attention::AttentionCall& call);

}  // namespace fulmen::cuda
