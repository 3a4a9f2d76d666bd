// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/top_k.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

TopKDims check(const TopKArgs& a) {
  const Dims d = check(kTopKSchema, {&a.input, &a.values, &a.indices});
  if (a.values.dtype != a.input.dtype) fail("top_k", "values", "dtype differs from input's");
  require(d["k"] <= d["row_len"], "top_k", "k", d["k"],
          [&] { return "at most row_len " + std::to_string(d["row_len"]); });
  require(d["row_len"] <= INT32_MAX, "top_k", "row_len", d["row_len"], "less than 2^31");
  return {d["num_rows"], d["row_len"], d["k"]};
}

void top_k(const TopKArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("top_k");
  const TopKDims dims = check(args);
  if (dims.num_rows * dims.k == 0) return;
  runtime::launch(kOp, args.values, &args, context);
}

}  // namespace fulmen
