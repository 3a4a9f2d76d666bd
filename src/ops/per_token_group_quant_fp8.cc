// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/runtime/registry.h>

namespace fulmen {

PerTokenGroupQuantFp8Dims check(const PerTokenGroupQuantFp8Args& a) {
  constexpr std::string_view kOp = "per_token_group_quant_fp8";
  const Dims d = check(kPerTokenGroupQuantFp8Schema, {&a.input, &a.out, &a.scales});
  const int64_t hidden_size = d["hidden_size"], num_tokens = d["num_tokens"];
  require(a.group_size >= 1 && hidden_size % a.group_size == 0, kOp, "group_size", a.group_size,
          [&] { return "a divisor of hidden_size " + std::to_string(hidden_size); });
  require(a.eps > 0, kOp, "eps", a.eps, "a positive number");
  const int64_t num_groups = hidden_size / a.group_size;
  const int64_t expected[2] = {a.group_major_scales ? num_groups : num_tokens,
                               a.group_major_scales ? num_tokens : num_groups};
  for (int32_t i = 0; i < 2; ++i)
    require(a.scales.shape[i] == expected[i], kOp, "scales dim " + std::to_string(i), a.scales.shape[i],
            std::to_string(expected[i]));
  return {num_tokens, hidden_size, num_groups};
}

void per_token_group_quant_fp8(const PerTokenGroupQuantFp8Args& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("per_token_group_quant_fp8");
  const PerTokenGroupQuantFp8Dims d = check(args);
  if (d.num_tokens * d.hidden_size == 0) return;
  runtime::launch(kOp, args.out, &args, context);
}

}  // namespace fulmen
