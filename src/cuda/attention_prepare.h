// SPDX-License-Identifier: Apache-2.0
// Attention's plan made on the device, by a kernel that reads the lengths where they are.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/cuda/attention_prepare.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

// For packs; nobody calls it as an op.
struct AttentionPrepare {
  using Key = attention_prepare::Key;
  static constexpr const char* kName = "attention_prepare";
  static std::vector<Key> common_keys() {
    using namespace attention_prepare;
    return {{kFewThreads, 1}, {kSomeThreads, kTilesPerThread}, {}};
  }
};

// A workspace takes no more than this, whatever the batch, unless the list of its tiles alone does; less where a
// smaller one is given: splits are fewer then.
inline constexpr int64_t kDeviceWorkspace = 64 << 20;

// Packed rows that requests of this call seem to have.
int64_t likely_rows(const attention::AttentionCall& call);
// Fills call.header: options, kernel, and how much a plan of these shapes may hold.
void shape_plan(const attention::AttentionCall& call, const Device& device, const Context& context);
// Whether what is made on the device must be made (again) in this workspace; then `made` says that it was.
bool must_make(attention::MadePlan* made, const void* workspace, const Device& device, const Context& context);
struct PlanPlace {
  char* plan = nullptr;
  char* results = nullptr;  // null: behind the plan
};
// Packed rows of the requests that a list takes.
struct RowLimits {
  int32_t least = 0, most = 0x7fffffff;
  int32_t other_tile = 1, other_ctas = 1;  // of the other list, where this one is that of few: its tile, CTAs on an SM
};
// Launches the kernel that plans the call's list.
void launch_planner(const attention::AttentionCall& call, const batch_attention::Key& key, const PlanPlace& place,
                    const RowLimits& rows, const Device& device, const Context& context);
void prepare_planner(const attention::AttentionCall& call, const batch_attention::Key& key, const Device& device);

}  // namespace fulmen::cuda
