// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/softmax.h>
#include <fulmen/reference/softmax.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/tokens.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(DType dtype, int64_t num_rows, int64_t vocab_size) {
  const std::string shape = std::to_string(num_rows) + "x" + std::to_string(vocab_size);
  bench::add(std::string("softmax/") + name_of(dtype), shape, [=] {
    struct Problem {
      testing::Tensor logits, out;
    };
    auto p = std::make_shared<Problem>(Problem{{dtype, {num_rows, vocab_size}}, {DType::kF32, {num_rows, vocab_size}}});
    testing::fill_tokens(p->logits, TokenValues::kLogits, testing::Shape::kPeaked, 1);
    const SoftmaxArgs args{.logits = p->logits, .out = p->out, .temperature = 0.7f};
    return bench::Subject{.run = [args] { softmax(args); },
                          .check = [args, p] { return testing::within(p->out, reference::softmax(args).out); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(fulmen::DType::kF32, 8, 128256);
  fulmen::add_row(fulmen::DType::kBF16, 8, 128256);
  fulmen::add_row(fulmen::DType::kF32, 1, 128256);
  return fulmen::bench::run(argc, argv, "softmax");
}
