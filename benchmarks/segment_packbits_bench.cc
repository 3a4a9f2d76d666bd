// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/segment_packbits.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

// Masks of batch_size requests, qo_len x kv_len each.
void add_row(int64_t batch_size, int64_t qo_len, int64_t kv_len) {
  const std::string shape =
      "B" + std::to_string(batch_size) + " " + std::to_string(qo_len) + "x" + std::to_string(kv_len);
  bench::add("segment_packbits/little", shape, [=] {
    struct Problem {
      testing::Tensor x, indptr, out, out_indptr;
    };
    const int64_t bits = qo_len * kv_len, all = batch_size * bits;
    auto p = std::make_shared<Problem>(Problem{{DType::kBool, {all}},
                                               {DType::kI32, {batch_size + 1}},
                                               {DType::kU8, {all / 8 + batch_size}},
                                               {DType::kI32, {batch_size + 1}}});
    p->x.fill_integers(1, 0, 1);
    p->indptr.fill([=](int64_t b) { return double(b * bits); });
    const SegmentPackBitsArgs args{
        .x = p->x, .indptr = p->indptr, .out = p->out, .out_indptr = p->out_indptr, .bitorder = BitOrder::kLittle};
    return bench::Subject{.run = [args] { segment_packbits(args); },
                          .check = [args, p]() -> ::testing::AssertionResult {
                            const auto expected = reference::segment_packbits(args).out;
                            if (std::equal(expected.begin(), expected.end(), p->out.data<uint8_t>()))
                              return ::testing::AssertionSuccess();
                            return ::testing::AssertionFailure() << "bytes differ";
                          },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(16, 1, 1000);
  fulmen::add_row(16, 100, 5000);
  return fulmen::bench::run(argc, argv, "segment_packbits");
}
