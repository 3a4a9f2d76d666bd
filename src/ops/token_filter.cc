// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/token_filter.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

TokenFilterDims check(const TokenFilterArgs& a) {
  const TokenFilter& f = a.filter;
  const Dims d = check(kTokenFilterSchema, {&a.input, &a.out, &a.status, &f.top_k_arr, &f.top_p_arr, &f.min_p_arr});
  if (a.out.dtype != a.input.dtype) fail("token_filter", "out", "dtype differs from input's");
  require(d["vocab_size"] <= INT32_MAX, "token_filter", "vocab_size", d["vocab_size"], "less than 2^31");
  return {d["batch_size"], d["vocab_size"]};
}

void token_filter(const TokenFilterArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("token_filter");
  const TokenFilterDims dims = check(args);
  if (dims.batch_size * dims.vocab_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
