// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/packbits.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

void add_row(BitOrder order, int64_t num_bits) {
  bench::add(std::string("packbits/") + (order == BitOrder::kBig ? "big" : "little"), std::to_string(num_bits), [=] {
    struct Problem {
      testing::Tensor x, out;
    };
    auto p = std::make_shared<Problem>(Problem{{DType::kBool, {num_bits}}, {DType::kU8, {(num_bits + 7) / 8}}});
    p->x.fill_integers(1, 0, 1);
    const PackBitsArgs args{.x = p->x, .out = p->out, .bitorder = order};
    return bench::Subject{.run = [args] { packbits(args); },
                          .check = [args, p, num_bits]() -> ::testing::AssertionResult {
                            const auto expected = reference::packbits(p->x, 0, num_bits, args.bitorder);
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
  for (int64_t num_bits : {4096, 1 << 24}) {
    fulmen::add_row(fulmen::BitOrder::kLittle, num_bits);
    fulmen::add_row(fulmen::BitOrder::kBig, num_bits);
  }
  return fulmen::bench::run(argc, argv, "packbits");
}
