// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/per_token_group_quant_fp8.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

std::string text(int64_t num_tokens, int64_t hidden_size) {
  return std::to_string(num_tokens) + "x" + std::to_string(hidden_size);
}
struct Problem {
  testing::Tensor input, out, scales;
};

void add_per_group(DType in, DType to, int64_t num_tokens, int64_t hidden_size) {
  const std::string id = std::string("per_token_group_quant_fp8/") + name_of(in) + "_to_" + name_of(to);
  bench::add(id, text(num_tokens, hidden_size), [=] {
    auto p = std::make_shared<Problem>(Problem{{in, {num_tokens, hidden_size}},
                                               {to, {num_tokens, hidden_size}},
                                               {DType::kF32, {num_tokens, hidden_size / 128}}});
    p->input.fill_normal(1);
    const PerTokenGroupQuantFp8Args args{.input = p->input, .out = p->out, .scales = p->scales};
    return bench::Subject{
        .run = [args] { per_token_group_quant_fp8(args); },
        .check = [args, p] { return testing::within(p->out, reference::per_token_group_quant_fp8(args).out); },
        .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::DType;
  for (int64_t num_tokens : {1, 512}) {
    fulmen::add_per_group(DType::kBF16, DType::kE4M3, num_tokens, 7168);
    fulmen::add_per_group(DType::kBF16, DType::kE5M2, num_tokens, 7168);
  }
  return fulmen::bench::run(argc, argv, "per_token_group_quant_fp8");
}
