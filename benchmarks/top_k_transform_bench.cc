// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/top_k_transform.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/top_k_transform_case.h"

namespace fulmen {
namespace {

void add_row(int64_t num_rows, int64_t row_len, int64_t k, testing::Table table, const char* name) {
  const std::string shape = std::to_string(num_rows) + "x" + std::to_string(row_len);
  bench::add("top_k_transform/" + std::string(name) + "/k" + std::to_string(k), shape, [=] {
    auto c = std::make_shared<testing::TransformCase>(DType::kF32, num_rows, row_len, k, table, false,
                                                      testing::Shape::kNormal, DType::kI32, 64);
    c->lengths.fill([=](int64_t) { return double(row_len); });
    const auto check = [c] {
      const std::string difference = c->difference();
      return difference.empty() ? ::testing::AssertionSuccess() : ::testing::AssertionFailure() << difference;
    };
    return bench::Subject{.run = [c] { top_k_transform(c->args); }, .check = check, .cost = cost(c->args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(8, 65536, 2048, fulmen::testing::Table::kPages, "pages");
  fulmen::add_row(8, 65536, 2048, fulmen::testing::Table::kOffsets, "offsets");
  return fulmen::bench::run(argc, argv, "top_k_transform");
}
