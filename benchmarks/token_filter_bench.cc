// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/token_filter.h>
#include <fulmen/reference/token_filter.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/tokens.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

// The prefix that the reference calls least; the shapes here leave no doubt about its length.
reference::Values expected(const TokenFilterArgs& a) {
  reference::Values all;
  for (int64_t row = 0; row < a.input.shape[0]; ++row) {
    const auto r = reference::ranked_row(a.input, row, a.values, reference::parameters_of(a.filter, 1, row));
    const reference::Values out = reference::filtered_row(r, r.least, a.values, a.out.dtype);
    all.insert(all.end(), out.begin(), out.end());
  }
  return all;
}

void add_row(const char* id, TokenValues values, const TokenFilter& filter, int64_t batch_size, int64_t vocab_size) {
  const std::string shape = std::to_string(batch_size) + "x" + std::to_string(vocab_size);
  bench::add(std::string("token_filter/") + id, shape, [=] {
    struct Problem {
      testing::Tensor input, out;
    };
    auto p = std::make_shared<Problem>(
        Problem{{DType::kF32, {batch_size, vocab_size}}, {DType::kF32, {batch_size, vocab_size}}});
    testing::fill_tokens(p->input, values, testing::Shape::kPeaked, 1);
    const TokenFilterArgs args{.input = p->input, .out = p->out, .filter = filter, .values = values};
    return bench::Subject{.run = [args] { token_filter(args); },
                          .check = [args, p] { return testing::within(p->out, expected(args)); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::TokenValues;
  fulmen::add_row("topk50/logits", TokenValues::kLogits, {.top_k = 50}, 8, 128256);
  fulmen::add_row("topk50/probs", TokenValues::kProbs, {.top_k = 50}, 8, 128256);
  fulmen::add_row("topp0.9/probs", TokenValues::kProbs, {.top_p = 0.9f}, 8, 128256);
  return fulmen::bench::run(argc, argv, "token_filter");
}
