// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/per_tensor_quant_fp8.h>

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

void add_per_tensor(DType in, DType to, bool dynamic, int64_t num_tokens, int64_t hidden_size) {
  const std::string id = std::string("per_tensor_quant_fp8/") + name_of(in) + "_to_" + name_of(to);
  bench::add(id + (dynamic ? "_dynamic" : ""), text(num_tokens, hidden_size), [=] {
    auto p = std::make_shared<Problem>(
        Problem{{in, {num_tokens, hidden_size}}, {to, {num_tokens, hidden_size}}, {DType::kF32, {1}}});
    p->input.fill_normal(1);
    p->scales.set(0, 0.01);
    const PerTensorQuantFp8Args args{.input = p->input, .out = p->out, .scale = p->scales, .dynamic = dynamic};
    return bench::Subject{
        .run = [args] { per_tensor_quant_fp8(args); },
        .check = [args, p] { return testing::within(p->out, reference::per_tensor_quant_fp8(args).out); },
        .cost = cost(args),
        .footprint_bytes = double(p->input.num_bytes() + p->out.num_bytes())};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::DType;
  for (int64_t num_tokens : {1, 512}) {
    fulmen::add_per_tensor(DType::kBF16, DType::kE4M3, false, num_tokens, 7168);
    fulmen::add_per_tensor(DType::kBF16, DType::kE4M3, true, num_tokens, 7168);
  }
  return fulmen::bench::run(argc, argv, "per_tensor_quant_fp8");
}
