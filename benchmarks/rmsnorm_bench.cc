// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/reference/rmsnorm.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(DType dtype, int64_t num_tokens, int64_t hidden_size) {
  const std::string shape = std::to_string(num_tokens) + "x" + std::to_string(hidden_size);
  bench::add(std::string("rmsnorm/") + name_of(dtype), shape, [=] {
    struct Problem {
      testing::Tensor input, weight, out;
    };
    auto p = std::make_shared<Problem>(
        Problem{{dtype, {num_tokens, hidden_size}}, {dtype, {hidden_size}}, {dtype, {num_tokens, hidden_size}}});
    p->input.fill_normal(1);
    p->weight.fill_normal(2);
    const RmsNormArgs args{.input = p->input, .weight = p->weight, .out = p->out};
    return bench::Subject{.run = [args] { rmsnorm(args); },
                          .check = [args, p] { return testing::within(p->out, reference::rmsnorm(args)); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(fulmen::DType::kF32, 2048, 4096);  // the standard row
  for (fulmen::DType t : {fulmen::DType::kF32, fulmen::DType::kBF16})
    for (int64_t num_tokens : {1, 32, 512}) fulmen::add_row(t, num_tokens, 4096);
  return fulmen::bench::run(argc, argv, "rmsnorm");
}
