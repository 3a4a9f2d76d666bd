// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/packbits.h>
#include <fulmen/reference/packbits.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

constexpr BitOrder kOrders[] = {BitOrder::kBig, BitOrder::kLittle};

Tensor random_bits(DType dtype, int64_t n) {
  Tensor t(dtype, {n});
  return dtype == DType::kBool ? t.fill_integers(3, 0, 1) : t.fill_integers(3, -300, 255).fill([&](int64_t i) {
    const double x = reference::element(t, i);  // any byte but 0 is a 1
    return x > 127 ? x : 0;
  });
}
std::vector<uint8_t> bytes_of(const Tensor& t) {
  EXPECT_TRUE(t.guards_intact());
  return {t.data<uint8_t>(), t.data<uint8_t>() + t.view().num_elements()};
}

TEST(PackBits, EqualsTheReferenceAtEveryLevel) {
  for (DType dtype : {DType::kBool, DType::kU8})
    for (int64_t n : {1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 500, 100001})
      for (BitOrder order : kOrders)
        for (CpuLevel level : levels()) {
          Tensor x = random_bits(dtype, n), out(DType::kU8, {(n + 7) / 8});
          packbits({x, out, order}, at(level));
          EXPECT_EQ(bytes_of(out), reference::packbits(x, 0, n, order)) << runtime::name_of(level) << " " << n;
        }
}

TEST(PackBits, KnownBytes) {
  Tensor x(DType::kBool, {10}), out(DType::kU8, {2});
  x.fill([](int64_t i) { return i == 0 || i == 3 || i == 9; });
  packbits({x, out, BitOrder::kLittle});
  EXPECT_EQ(bytes_of(out), (std::vector<uint8_t>{0x09, 0x02}));
  packbits({x, out});
  EXPECT_EQ(bytes_of(out), (std::vector<uint8_t>{0x90, 0x40}));
}

TEST(PackBits, NothingIsLegal) {
  Tensor x(DType::kBool, {0}), out(DType::kU8, {0});
  EXPECT_NO_THROW(packbits({x, out}));
}

TEST(PackBitsCheck, NamesWhatIsWrong) {
  Tensor x(DType::kBool, {17}), out(DType::kU8, {2});
  EXPECT_EQ(error_of([&] { packbits({x, out}); }), "packbits: out dim 0 (num_bytes) is 2, expected 3");
}

TEST(PackBitsCheck, RefusesEveryBrokenRule) {
  Tensor x(DType::kBool, {17}), out(DType::kU8, {3});
  expect_every_break_refused(kPackBitsSchema, {x, out}, [&](const std::vector<TensorView>& t) {
    check(PackBitsArgs{t[0], t[1]});
  });
}

}  // namespace
}  // namespace fulmen::testing
