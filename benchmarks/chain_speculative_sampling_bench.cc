// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/reference/chain_speculative_sampling.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/tokens.h"

namespace fulmen {
namespace {

struct Problem {
  testing::Tensor draft, ids, target, out;
  ChainSpeculativeSamplingArgs args;
  Problem(int64_t batch_size, int64_t n, int64_t vocab_size)
      : draft(DType::kF32, {batch_size * n, vocab_size}),
        ids(DType::kI32, {batch_size, n}),
        target(DType::kF32, {batch_size * (n + 1), vocab_size}),
        out(DType::kI32, {batch_size, n + 1}) {
    testing::fill_tokens(draft, TokenValues::kProbs, testing::Shape::kPeaked, 1);
    testing::fill_tokens(target, TokenValues::kProbs, testing::Shape::kPeaked, 2);
    ids.fill_integers(3, 0, int32_t(vocab_size) - 1);
    args = {.draft_probs = view_of(draft.data<float>(), {batch_size, n, vocab_size}),
            .draft_token_ids = ids,
            .target_probs = view_of(target.data<float>(), {batch_size, n + 1, vocab_size}),
            .out = out,
            .random = {.seed = 17}};
  }
};

::testing::AssertionResult check_rows(const Problem& p) {
  const int64_t n = p.args.draft_probs.shape[1];
  for (int64_t row = 0; row < p.args.out.shape[0]; ++row) {
    const reference::ChainReference ref = reference::chain(p.args, row);
    if (!reference::acceptable(ref.last, ref.last_u, p.out.data<int32_t>()[row * (n + 1) + ref.emitted], 2))
      return ::testing::AssertionFailure() << "row " << row << " ends with another token than the reference";
  }
  return ::testing::AssertionSuccess();
}

void add_row(int64_t batch_size, int64_t num_draft_tokens, int64_t vocab_size) {
  const std::string shape =
      std::to_string(batch_size) + "x" + std::to_string(num_draft_tokens) + "x" + std::to_string(vocab_size);
  bench::add("chain_speculative_sampling", shape, [=] {
    auto p = std::make_shared<Problem>(batch_size, num_draft_tokens, vocab_size);
    return bench::Subject{.run = [p] { chain_speculative_sampling(p->args); },
                          .check = [p] { return check_rows(*p); },
                          .cost = cost(p->args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(8, 4, 128256);
  return fulmen::bench::run(argc, argv, "chain_speculative_sampling");
}
