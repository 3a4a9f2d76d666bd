// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

ActAndMulDims check(const ActAndMulArgs& a) {
  const Dims d = check(kActAndMulSchema, {&a.input, &a.out});
  require_same_dtype("act_and_mul", "out", a.out, a.input, "input");
  require(a.activation >= Activation::kSilu && a.activation <= Activation::kGeluTanh, "act_and_mul", "activation",
          int32_t(a.activation), "silu (0), gelu (1) or gelu_tanh (2)");
  return {d["num_tokens"], d["num_heads"], d["hidden_size"]};
}

void act_and_mul(const ActAndMulArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("act_and_mul");
  const ActAndMulDims d = check(args);
  if (d.num_tokens * d.num_heads * d.hidden_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
