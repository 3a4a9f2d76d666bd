// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/sample.h>
#include <fulmen/reference/sample.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/tokens.h"

namespace fulmen {
namespace {

struct Row {
  const char* id;
  TokenValues values;
  TokenFilter filter;
};

void add_row(const Row& row, DType dtype, int64_t batch_size, int64_t vocab_size, testing::Shape values_shape) {
  const std::string shape = std::to_string(batch_size) + "x" + std::to_string(vocab_size);
  const bool peaked = values_shape == testing::Shape::kPeaked;
  bench::add(std::string("sample/") + row.id + (peaked ? "/std5/" : "/std1/") + name_of(dtype), shape, [=] {
    struct Problem {
      testing::Tensor input, out;
    };
    auto p = std::make_shared<Problem>(Problem{{dtype, {batch_size, vocab_size}}, {DType::kI32, {batch_size}}});
    testing::fill_tokens(p->input, row.values, values_shape, 1);
    const SampleArgs args{
        .input = p->input, .out = p->out, .filter = row.filter, .random = {.seed = 3}, .values = row.values};
    const auto check = [args, p] {
      for (int64_t i = 0; i < args.out.shape[0]; ++i)
        if (!reference::acceptable(args, i, p->out.data<int32_t>()[i]))
          return ::testing::AssertionFailure() << "row " << i << " drew another token than the reference";
      return ::testing::AssertionSuccess();
    };
    return bench::Subject{.run = [args] { sample(args); }, .check = check, .cost = cost(args)};
  });
}

constexpr TokenValues kProbs = TokenValues::kProbs, kLogits = TokenValues::kLogits;
const Row kRows[] = {
    {"topk50_topp0.9/logits", kLogits, {.top_k = 50, .top_p = 0.9f}},  // the standard row is the first
    {"greedy/logits", kLogits, {.top_k = 1}},
    {"all/logits", kLogits, {}},
    {"topk5000/logits", kLogits, {.top_k = 5000}},
    {"topp0.9/logits", kLogits, {.top_p = 0.9f}},
    {"minp0.1/logits", kLogits, {.min_p = 0.1f}},
    {"all/probs", kProbs, {}},
    {"topk50/probs", kProbs, {.top_k = 50}},
    {"topp0.9/probs", kProbs, {.top_p = 0.9f}},
    {"topk50_topp0.9_joint/probs", kProbs, {.top_k = 50, .top_p = 0.9f, .order = FilterOrder::kJoint}},
};

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::testing::Shape;
  for (Shape shape : {Shape::kPeaked, Shape::kNormal})
    for (const fulmen::Row& row : fulmen::kRows) fulmen::add_row(row, fulmen::DType::kF32, 8, 128256, shape);
  for (int64_t batch_size : {1, 64})
    fulmen::add_row(fulmen::kRows[0], fulmen::DType::kF32, batch_size, 128256, Shape::kPeaked);
  fulmen::add_row(fulmen::kRows[0], fulmen::DType::kBF16, 8, 128256, Shape::kPeaked);
  return fulmen::bench::run(argc, argv, "sample");
}
