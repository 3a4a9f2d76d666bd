// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/top_k.h>
#include <fulmen/reference/top_k.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/tokens.h"

namespace fulmen {
namespace {

void add_row(int64_t num_rows, int64_t row_len, int64_t k, bool sorted) {
  const std::string shape = std::to_string(num_rows) + "x" + std::to_string(row_len);
  bench::add("top_k/k" + std::to_string(k) + (sorted ? "/sorted" : ""), shape, [=] {
    struct Problem {
      testing::Tensor input, values, indices;
    };
    auto p = std::make_shared<Problem>(
        Problem{{DType::kF32, {num_rows, row_len}}, {DType::kF32, {num_rows, k}}, {DType::kI64, {num_rows, k}}});
    testing::fill_tokens(p->input, TokenValues::kLogits, testing::Shape::kPeaked, 1);
    const TopKArgs args{.input = p->input, .values = p->values, .indices = p->indices, .sorted = sorted};
    const auto check = [args, p] {
      const std::vector<int64_t> expected = reference::top_k(args);
      for (size_t i = 0; i < expected.size(); ++i)
        if (p->indices.data<int64_t>()[i] != expected[i])
          return ::testing::AssertionFailure() << "place " << i << " differs from the reference";
      return ::testing::AssertionSuccess();
    };
    return bench::Subject{.run = [args] { top_k(args); }, .check = check, .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  for (int64_t k : {1, 50, 2048}) fulmen::add_row(8, 128256, k, true);
  fulmen::add_row(8, 128256, 2048, false);
  return fulmen::bench::run(argc, argv, "top_k");
}
