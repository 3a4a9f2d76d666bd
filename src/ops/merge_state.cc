// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/merge_state.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

MergeDims check(const MergeStateArgs& a) {
  const Dims d = check(kMergeStateSchema, {&a.v_a, &a.s_a, &a.v_b, &a.s_b, &a.out, &a.lse, &a.mask});
  require_same_dtype("merge_state", "v_b", a.v_b, a.v_a, "v_a");
  return {d["num_tokens"], 2, d["num_heads"], d["head_dim"]};
}

MergeDims check(const MergeStatesArgs& a) {
  const Dims d = check(kMergeStatesSchema, {&a.v, &a.s, &a.out, &a.lse, &a.mask});
  return {d["num_tokens"], d["num_states"], d["num_heads"], d["head_dim"]};
}

void merge_state(const MergeStateArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("merge_state");
  const MergeDims d = check(args);
  if (d.num_tokens * d.num_heads == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

void merge_states(const MergeStatesArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("merge_states");
  const MergeDims d = check(args);
  if (d.num_tokens * d.num_heads == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
