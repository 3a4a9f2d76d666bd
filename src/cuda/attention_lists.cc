// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_lists.h"

#include <algorithm>

#include "src/cuda/attention.h"
#include "src/cuda/attention_mixed.h"

namespace fulmen::cuda {

using attention::AttentionCall, attention::PlanList;

namespace {

int64_t size_of_list(const LaunchList& list) { return list.layout.bytes - kWorkspaceAlign; }

// Whether the call brings memory for the plan apart from its workspace.
bool keeps_plan(const AttentionCall& call) { return call.made != nullptr && call.made->memory.defined(); }

// plan: with all its lists.
void upload(const attention::PlanView& plan, const LaunchList& list, driver::Stream stream) {
  attention::Plan own;
  if (plan.header.config.few_q > 0) own = list_of(plan, list.which);
  const std::vector<char> image = plan_image(own.data.empty() ? plan : own.view(), list.layout);
  check(
      driver::api().memory_copy(driver::Pointer(list.place.plan), driver::Pointer(image.data()), image.size(), stream),
      "cuMemcpyAsync of a plan");
}

// Plans where the kernels read them. False: they lay there already.
bool put_plan(const AttentionCall& call, const AttentionLists& lists, const Device& device, const Context& context) {
  const PlanPlace& first = lists.first_place();
  const bool on_device = call.plan->header.on_device != 0;
  if (on_device ? !must_make(call.made, first.results != nullptr ? first.results : first.plan, device, context)
                : call.resident)
    return false;
  lists.for_lists([&](const AttentionCall& part, const LaunchList& list) {
    if (on_device)
      launch_planner(part, list.key, list.place, list.rows, device, context);
    else
      upload(*call.plan, list, static_cast<driver::Stream>(context.stream));
  });
  return true;
}

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
  const attention::PlanConfig& c = call.plan->header.config;
  const int32_t few_q = c.few_q, first_ctas = c.few_workers, ctas = ctas_on_sm(c, device);
  const bool mixed = few_q > 0;
  for (PlanList which : {PlanList::kFew, PlanList::kMany}) {
    if (which == PlanList::kFew && !mixed) continue;
    const attention::PlanView plan{list_of(call.plan->header, which), call.plan->data};
    const batch_attention::Key key = planned_attention_key(call, plan.header.config, device);
    const RowLimits of_few{.most = few_q, .other_tile = c.tile_q, .other_ctas = ctas}, of_many{.least = few_q + 1};
    const RowLimits rows = !mixed ? RowLimits{} : which == PlanList::kFew ? of_few : of_many;
    const bool many = which == PlanList::kMany && (mixed || first_ctas == 0);
    lists_[many].emplace(LaunchList{
        which, plan, key, layout_of(plan.header, which, key, device), rows, {}, std::min(first_ctas, device.num_sms)});
  }
}

int64_t AttentionLists::plan_bytes() const {
  int64_t sum = kWorkspaceAlign;
  for (const std::optional<LaunchList>& list : lists_) sum += list ? list->layout.plan_bytes : 0;
  return sum;
}

int64_t AttentionLists::bytes() const {
  int64_t sum = 2 * kWorkspaceAlign;
  for (const std::optional<LaunchList>& list : lists_) sum += list ? size_of_list(*list) : 0;
  return keeps_plan(call_) ? sum - plan_bytes() : sum;
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

PlacedCall::PlacedCall(const AttentionCall& call, const Device& device, const Context& context) : lists(call, device) {
  if (call.workspace == nullptr) own.emplace(size_t(lists.bytes()), static_cast<driver::Stream>(context.stream));
  char* const plan = keeps_plan(call) ? aligned(call.made->memory.data) : nullptr;
  lists.place(aligned(own ? own->data() : call.workspace), plan);
  is_new = put_plan(call, lists, device, context);
}

}  // namespace fulmen::cuda
