// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/softmax.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

SoftmaxDims check(const SoftmaxArgs& a) {
  const Dims d = check(kSoftmaxSchema, {&a.logits, &a.out, &a.status, &a.temperature_arr});
  if (a.out.data == a.logits.data && a.out.dtype != a.logits.dtype)
    fail("softmax", "out", "is logits itself, which is not float32");
  require(a.temperature >= 0, "softmax", "temperature", a.temperature, "0 or more");
  return {d["num_rows"], d["vocab_size"]};
}

void softmax(const SoftmaxArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("softmax");
  const SoftmaxDims dims = check(args);
  if (dims.num_rows * dims.vocab_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
