// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/reference/act_and_mul.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(Activation activation, DType dtype, int64_t num_tokens, int64_t hidden_size) {
  constexpr const char* kNames[] = {"silu", "gelu", "gelu_tanh"};
  const std::string shape = std::to_string(num_tokens) + "x" + std::to_string(hidden_size);
  bench::add(std::string(kNames[int32_t(activation)]) + "_and_mul/" + name_of(dtype), shape, [=] {
    struct Problem {
      testing::Tensor input, out;
    };
    auto p =
        std::make_shared<Problem>(Problem{{dtype, {num_tokens, 2 * hidden_size}}, {dtype, {num_tokens, hidden_size}}});
    p->input.fill_normal(1, 2);
    const ActAndMulArgs args{.input = p->input, .out = p->out, .activation = activation};
    return bench::Subject{.run = [args] { act_and_mul(args); },
                          .check = [args, p] { return testing::within(p->out, reference::act_and_mul(args)); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::Activation, fulmen::DType;
  fulmen::add_row(Activation::kSilu, DType::kF32, 2048, 14336);  // the row that peers were measured on
  for (Activation a : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh})
    for (DType t : {DType::kF32, DType::kBF16})
      for (int64_t num_tokens : {1, 128}) fulmen::add_row(a, t, num_tokens, 14336);
  return fulmen::bench::run(argc, argv, "act_and_mul");
}
