// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/get_batch_indices_positions.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(int64_t batch_size, int64_t append_len) {
  const std::string shape = "B" + std::to_string(batch_size) + " " + std::to_string(append_len);
  bench::add("get_batch_indices_positions/int32", shape, [=] {
    struct Problem {
      testing::Tensor append_indptr, seq_lens, batch_indices, positions;
    };
    const int64_t nnz = batch_size * append_len;
    auto p = std::make_shared<Problem>(Problem{
        {DType::kI32, {batch_size + 1}}, {DType::kI32, {batch_size}}, {DType::kI32, {nnz}}, {DType::kI32, {nnz}}});
    p->append_indptr.fill([=](int64_t b) { return double(b * append_len); });
    p->seq_lens.fill([=](int64_t b) { return double(append_len + b); });
    const GetBatchIndicesPositionsArgs args{p->append_indptr, p->seq_lens, p->batch_indices, p->positions};
    return bench::Subject{.run = [args] { get_batch_indices_positions(args); },
                          .check = [args, p]() -> ::testing::AssertionResult {
                            const auto expected = reference::get_batch_indices_positions(args).positions;
                            if (std::equal(expected.begin(), expected.end(), p->positions.data<int32_t>()))
                              return ::testing::AssertionSuccess();
                            return ::testing::AssertionFailure() << "positions differ";
                          },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(256, 1);
  fulmen::add_row(16, 2048);
  return fulmen::bench::run(argc, argv, "get_batch_indices_positions");
}
