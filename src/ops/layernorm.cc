// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/layernorm.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

LayerNormDims check(const LayerNormArgs& a) {
  const Dims d = check(kLayerNormSchema, {&a.input, &a.gamma, &a.beta, &a.out, &a.out_scale});
  require_out("layernorm", a.out, a.out_scale, a.input);
  require_weight_dtype("layernorm", "gamma", a.gamma, a.input);
  require_same_dtype("layernorm", "beta", a.beta, a.gamma, "gamma");
  require(a.eps > 0, "layernorm", "eps", a.eps, "a positive number");
  return {d["num_tokens"], d["num_heads"], d["hidden_size"]};
}

void layernorm(const LayerNormArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("layernorm");
  const LayerNormDims d = check(args);
  if (d.num_tokens * d.num_heads * d.hidden_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
