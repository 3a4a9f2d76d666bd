// SPDX-License-Identifier: Apache-2.0
// A plan in the caller's workspace: PlanOnDevice, its lists, the counters of merges, then room for partial results.
#pragma once
#include <fulmen/attention/plan.h>
#include <fulmen/cuda/attention_prepare.h>

namespace fulmen::cuda {

inline constexpr int64_t kWorkspaceAlign = 256;

struct AttentionWorkspace {
  batch_attention::PlanOnDevice head{};
  int64_t requests = 0;                 // of a plan made on the device
  int64_t upload_bytes = 0, bytes = 0;  // bytes: for a base of any alignment
  int64_t plan_bytes = 0;               // of it, the plan's; the rest are partial results

  AttentionWorkspace(const attention::PlanHeader& plan, const batch_attention::Key& key);
  // Partial results in other memory than the plan; both aligned.
  void separate(const char* plan, const char* results);
};

// The first upload_bytes of the workspace.
std::vector<char> plan_image(const attention::PlanView& plan, const AttentionWorkspace& workspace);

inline char* aligned(void* workspace) {
  const uint64_t at = reinterpret_cast<uint64_t>(workspace);
  return static_cast<char*>(workspace) + (kWorkspaceAlign - at % kWorkspaceAlign) % kWorkspaceAlign;
}

}  // namespace fulmen::cuda
