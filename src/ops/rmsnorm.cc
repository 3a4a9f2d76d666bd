// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

RmsNormDims check(const RmsNormArgs& a) {
  const Dims d = check(kRmsNormSchema, {&a.input, &a.weight, &a.out, &a.out_scale});
  require_out("rmsnorm", a.out, a.out_scale, a.input);
  require_weight_dtype("rmsnorm", "weight", a.weight, a.input);
  require(a.eps > 0, "rmsnorm", "eps", a.eps, "a positive number");
  return {d["num_tokens"], d["num_heads"], d["hidden_size"]};
}

void rmsnorm(const RmsNormArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("rmsnorm");
  const RmsNormDims dims = check(args);
  if (dims.num_tokens * dims.num_heads * dims.hidden_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
