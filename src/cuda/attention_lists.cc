// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_lists.h"

#include <algorithm>

#include "src/cuda/attention.h"
#include "src/cuda/attention_mixed.h"

namespace fulmen::cuda {

using attention::AttentionCall, attention::PlanList;

namespace {

int64_t size_of_list(const LaunchList& list) { return list.layout.bytes - kWorkspaceAlign; }

// The list for few rows takes as much as any for so many requests may, so that the other one lies where a captured
// graph looks for it, whatever plan is uploaded later.
AttentionWorkspace layout_of(const attention::PlanHeader& header, PlanList which, const batch_attention::Key& key,
                             const Device& device) {
  if (which == PlanList::kMany || header.on_device != 0) return AttentionWorkspace(header, key);
  attention::PlanHeader most = header;
  most.config.num_workers = device.num_sms;
  most.num_slots = std::max(header.num_slots, attention::max_slots(most_few_workers(device)));
  most.num_merges = most.num_slots / 2;
  const int64_t num_items = int64_t(header.batch_size) * header.config.num_kv_heads + most.num_slots;
  most.num_items = std::max(header.num_items, int32_t(std::min<int64_t>(num_items, 1 << 25)));
  AttentionWorkspace layout(most, key);
  layout.head.num_items = header.num_items, layout.head.num_workers = header.config.num_workers;
  return layout;
}

}  // namespace

AttentionLists::AttentionLists(const AttentionCall& call, const Device& device)
    : call_(call), num_sms_(device.num_sms) {
  const int32_t few_q = call.plan->header.config.few_q;
  const bool mixed = few_q > 0;
  for (PlanList which : {PlanList::kFew, PlanList::kMany}) {
    if (which == PlanList::kFew && !mixed) continue;
    const attention::PlanView plan{list_of(call.plan->header, which), call.plan->data};
    const batch_attention::Key key = planned_attention_key(call, plan.header.config, device);
    const RowLimits rows = !mixed                    ? RowLimits{}
                           : which == PlanList::kFew ? RowLimits{.most = few_q}
                                                     : RowLimits{.least = few_q + 1};
    lists_[which == PlanList::kMany].emplace(
        LaunchList{which, plan, key, layout_of(plan.header, which, key, device), rows, {}});
  }
}

int64_t AttentionLists::bytes() const { return size_of_list(*lists_[1]) + (lists_[0] ? size_of_list(*lists_[0]) : 0); }
int64_t AttentionLists::plan_bytes() const {
  return lists_[1]->layout.plan_bytes + (lists_[0] ? lists_[0]->layout.plan_bytes : 0);
}

void AttentionLists::place(char* workspace, char* plan) {
  for (std::optional<LaunchList>& list : lists_) {
    if (!list) continue;
    const int64_t plan_bytes = list->layout.plan_bytes, results = size_of_list(*list) - plan_bytes;
    if (plan == nullptr) {
      list->place = {workspace, nullptr}, workspace += plan_bytes + results;
    } else {
      list->place = {plan, workspace};
      plan += plan_bytes, workspace += results;
    }
  }
}

}  // namespace fulmen::cuda
