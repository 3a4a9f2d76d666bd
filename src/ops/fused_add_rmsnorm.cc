// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

FusedAddRmsNormDims check(const FusedAddRmsNormArgs& a) {
  const Dims d = check(kFusedAddRmsNormSchema, {&a.input, &a.residual, &a.weight, &a.out, &a.out_scale});
  require_same_dtype("fused_add_rmsnorm", "residual", a.residual, a.input, "input");
  require_out("fused_add_rmsnorm", a.out, a.out_scale, a.input);
  require_weight_dtype("fused_add_rmsnorm", "weight", a.weight, a.input);
  require(a.eps > 0, "fused_add_rmsnorm", "eps", a.eps, "a positive number");
  return {d["num_tokens"], d["num_heads"], d["hidden_size"]};
}

void fused_add_rmsnorm(const FusedAddRmsNormArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("fused_add_rmsnorm");
  const FusedAddRmsNormDims d = check(args);
  if (d.num_tokens * d.num_heads * d.hidden_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
