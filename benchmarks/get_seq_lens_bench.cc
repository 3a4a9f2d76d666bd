// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/get_seq_lens.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(int64_t batch_size) {
  bench::add("get_seq_lens/int32", "B" + std::to_string(batch_size), [=] {
    struct Problem {
      testing::Tensor indptr, last_page_len, seq_lens;
    };
    auto p = std::make_shared<Problem>(
        Problem{{DType::kI32, {batch_size + 1}}, {DType::kI32, {batch_size}}, {DType::kI32, {batch_size}}});
    p->indptr.fill([](int64_t b) { return double(b * 100); });
    p->last_page_len.fill([](int64_t b) { return double(b % 16 + 1); });
    const GetSeqLensArgs args{p->indptr, p->last_page_len, p->seq_lens, 16};
    return bench::Subject{.run = [args] { get_seq_lens(args); },
                          .check = [args, p]() -> ::testing::AssertionResult {
                            const auto expected = reference::get_seq_lens(args);
                            if (std::equal(expected.begin(), expected.end(), p->seq_lens.data<int32_t>()))
                              return ::testing::AssertionSuccess();
                            return ::testing::AssertionFailure() << "lengths differ";
                          },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  for (int64_t batch_size : {8, 256}) fulmen::add_row(batch_size);
  return fulmen::bench::run(argc, argv, "get_seq_lens");
}
