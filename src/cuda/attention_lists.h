// SPDX-License-Identifier: Apache-2.0
// The launches of a planned call: one, or three where the plan has a list for requests of few rows (attention/plan.h):
//
//   few rows   on some SMs, as many as read at almost the memory's speed   ┐ each starts while the one before runs, on
//   many rows  on all others, and on those too once they are free          ┤ SMs that are free, and ends after it
//   few rows   what the first has left, once many rows are done            ┘
//
// All take items from the queues of two lists, so that no SM idles whatever the lengths are.
#pragma once
#include <fulmen/attention/call.h>

#include <array>
#include <optional>

#include "src/cuda/attention_plan.h"
#include "src/cuda/attention_prepare.h"

namespace fulmen::cuda {

// What one launch does: a list of the plan, the kernel for it, and where it lies.
struct LaunchList {
  attention::PlanList which;
  attention::PlanView plan;  // the header alone where the plan has two lists
  batch_attention::Key key;
  AttentionWorkspace layout;
  RowLimits rows;
  PlanPlace place;
};
struct Turn {
  bool is_beside = false;
  int32_t num_ctas = 0;  // 0: as planned
  int32_t queue_peers = -1;
  bool is_settled = false;  // the plan was made before the launch before this one
};

class AttentionLists {
 public:
  AttentionLists(const attention::AttentionCall& call, const Device& device);
  int64_t bytes() const;  // of aligned memory; of it, the plan's:
  int64_t plan_bytes() const;
  // plan: where the lists lie, apart from partial results; null: in the workspace.
  void place(char* workspace, char* plan);
  // f(call of this list, list) for each.
  template <class F>
  void for_lists(F&& f) const {
    for (const std::optional<LaunchList>& list : lists_)
      if (list) f(call_of(*list), *list);
  }
  // f(call of a list, list, turn) for each launch, in order.
  template <class F>
  void for_launches(F&& f) const {
    const LaunchList& many = *lists_[1];
    if (!lists_[0]) return f(call_of(many), many, Turn{});
    const LaunchList& few = *lists_[0];
    const int32_t first = few.plan.header.config.num_workers, rest = num_sms_ - first;
    f(call_of(few), few, Turn{false, first, rest});
    f(call_of(many), many, Turn{true, 0, 0});
    f(call_of(few), few, Turn{true, rest, first});
  }
  // That of the first launch.
  const PlanPlace& first_place() const { return (lists_[0] ? lists_[0] : lists_[1])->place; }

 private:
  attention::AttentionCall call_of(const LaunchList& list) const {
    attention::AttentionCall call = call_;
    call.plan = &list.plan;
    return call;
  }

  const attention::AttentionCall& call_;
  int32_t num_sms_;
  std::array<std::optional<LaunchList>, 2> lists_;
};

}  // namespace fulmen::cuda
