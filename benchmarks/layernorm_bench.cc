// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/layernorm.h>
#include <fulmen/reference/layernorm.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(DType dtype, int64_t num_tokens, int64_t hidden_size) {
  const std::string shape = std::to_string(num_tokens) + "x" + std::to_string(hidden_size);
  bench::add(std::string("layernorm/") + name_of(dtype), shape, [=] {
    struct Problem {
      testing::Tensor input, gamma, beta, out;
    };
    auto p = std::make_shared<Problem>(Problem{{dtype, {num_tokens, hidden_size}},
                                               {DType::kF32, {hidden_size}},
                                               {DType::kF32, {hidden_size}},
                                               {dtype, {num_tokens, hidden_size}}});
    p->input.fill_normal(1);
    p->gamma.fill_normal(2);
    p->beta.fill_normal(3);
    const LayerNormArgs args{.input = p->input, .gamma = p->gamma, .beta = p->beta, .out = p->out};
    return bench::Subject{.run = [args] { layernorm(args); },
                          .check = [args, p] { return testing::within(p->out, reference::layernorm(args)); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  for (fulmen::DType t : {fulmen::DType::kF32, fulmen::DType::kBF16})
    for (int64_t num_tokens : {1, 512}) fulmen::add_row(t, num_tokens, 4096);
  return fulmen::bench::run(argc, argv, "layernorm");
}
