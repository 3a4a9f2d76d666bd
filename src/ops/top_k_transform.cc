// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/top_k_transform.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

TopKDims check(const TopKTransformArgs& a) {
  const char* op = "top_k_transform";
  const Dims d = check(kTopKTransformSchema, {&a.input, &a.lengths, &a.row_starts, &a.page_table, &a.row_to_batch,
                                              &a.page_starts, &a.offsets, &a.out, &a.places});
  if (a.offsets.defined() && a.page_table.defined()) fail(op, "offsets", "given beside page_table");
  if (a.row_to_batch.defined() && !a.page_table.defined()) fail(op, "row_to_batch", "given without page_table");
  if (a.page_starts.defined() && !a.page_table.defined()) fail(op, "page_starts", "given without page_table");
  require(a.page_size >= 1, op, "page_size", a.page_size, "1 or more");
  require(d["k"] <= d["row_len"], op, "k", d["k"], [&] { return "at most row_len " + std::to_string(d["row_len"]); });
  require(d["row_len"] <= INT32_MAX, op, "row_len", d["row_len"], "less than 2^31");
  return {d["num_rows"], d["row_len"], d["k"]};
}

void top_k_transform(const TopKTransformArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("top_k_transform");
  const TopKDims dims = check(args);
  if (dims.num_rows * dims.k == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
