// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

PerTensorQuantFp8Dims check(const PerTensorQuantFp8Args& a) {
  const Dims d = check(kPerTensorQuantFp8Schema, {&a.input, &a.out, &a.scale});
  return {d["num_tokens"], d["num_heads"], d["hidden_size"]};
}

void per_tensor_quant_fp8(const PerTensorQuantFp8Args& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("per_tensor_quant_fp8");
  check(args);
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
