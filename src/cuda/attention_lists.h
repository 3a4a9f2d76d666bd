// SPDX-License-Identifier: Apache-2.0
// The launches of a planned call: one, or three where the plan has a list for requests of few rows (attention/plan.h):
//
//   few rows   on some SMs, as many as read at almost the memory's speed   ┐ each starts while the one before runs, on
//   many rows  on all others, and on those too once they are free          ┤ SMs that are free, and ends after it
//   few rows   what the first has left, once many rows are done            ┘
//
// All take items from the queues of two lists, so that no SM idles whatever the lengths are. The lists may be those of
// two calls (POD), of which one was planned to run beside the other.
#pragma once
#include <fulmen/attention/call.h>

#include <array>
#include <optional>

#include "src/cuda/attention_plan.h"
#include "src/cuda/attention_prepare.h"
#include "src/cuda/stream_memory.h"

namespace fulmen::cuda {

// What one launch does: a list of the plan, the kernel for it, and where it lies.
struct LaunchList {
  attention::PlanList which;
  attention::PlanView plan;  // the header alone where the plan has two lists
  batch_attention::Key key;
  AttentionWorkspace layout;
  RowLimits rows;
  PlanPlace place;
  int32_t first_ctas = 0;  // of few rows: that begin
};
// Of a launch.
struct Turn {
  bool is_beside = false;
  int32_t num_ctas = 0;  // 0: as planned
  int32_t queue_peers = -1;
  bool is_settled = false;  // the plan was made before the launch before this one
};

class AttentionLists {
 public:
  AttentionLists(const attention::AttentionCall& call, const Device& device);
  int64_t bytes() const;       // of a workspace, without the plan where that is kept apart
  int64_t plan_bytes() const;  // of memory for the plan apart
  // plan: where the lists lie, apart from partial results; null: in the workspace.
  void place(char* workspace, char* plan);
  // f(call of this list, list) for each.
  template <class F>
  void for_lists(F&& f) const {
    for (const std::optional<LaunchList>& list : lists_)
      if (list) f(call_of(*list), *list);
  }
  // f(call of a list, list, turn) for each launch, in order. is_beside: the first one too.
  template <class F>
  void for_launches(F&& f, bool is_beside = false) const {
    if (lists_[0] && lists_[1]) return around(f, is_beside, [&] { f(call_of(*lists_[1]), *lists_[1], kBeside); });
    if (lists_[0]) return f(call_of(*lists_[0]), *lists_[0], Turn{is_beside, num_sms_, 0});
    f(call_of(*lists_[1]), *lists_[1], is_beside ? kBeside : Turn{});
  }
  // The same for a call that was planned to run beside another, and that one.
  template <class F>
  void for_launches_beside(const AttentionLists& other, F&& f) const {
    around(f, false, [&] { other.for_launches(f, true); });
  }
  // That of the first launch.
  const PlanPlace& first_place() const { return (lists_[0] ? lists_[0] : lists_[1])->place; }

 private:
  static constexpr Turn kBeside{true, 0, 0};
  // The few rows' launches and, between them, what comes beside.
  template <class F, class Between>
  void around(F&& f, bool is_beside, Between&& between) const {
    const LaunchList& few = *lists_[0];
    const int32_t rest = num_sms_ - few.first_ctas;
    f(call_of(few), few, Turn{is_beside, few.first_ctas, rest});
    between();
    if (rest > 0) f(call_of(few), few, Turn{true, rest, few.first_ctas});  // 0: of a plan for more SMs
  }
  attention::AttentionCall call_of(const LaunchList& list) const {
    attention::AttentionCall call = call_;
    call.plan = &list.plan;
    return call;
  }

  const attention::AttentionCall& call_;
  int32_t num_sms_;
  std::array<std::optional<LaunchList>, 2> lists_;  // of few rows, of many: either or both
};

// The lists of a call that runs or is uploaded where they lie, with the plan; memory of the stream's own where the call
// brings none.
struct PlacedCall {
  AttentionLists lists;
  std::optional<StreamMemory> own;
  bool is_new = false;  // the plan did not lie there already

  PlacedCall(const attention::AttentionCall& call, const Device& device, const Context& context);
};

}  // namespace fulmen::cuda
