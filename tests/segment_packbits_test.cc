// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/segment_packbits.h>
#include <fulmen/reference/segment_packbits.h>

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

TEST(SegmentPackBits, EqualsTheReferenceAtEveryLevel) {
  for (DType ids : {DType::kI32, DType::kI64})
    for (BitOrder order : kOrders)
      for (CpuLevel level : levels()) {
        const std::vector<int64_t> bounds{0, 1, 1, 9, 17, 80, 145, 700, 20000};
        Tensor x = random_bits(DType::kBool, 20003), indptr(ids, {9}), out_indptr(ids, {9}),
               out(DType::kU8, {20003 / 8 + 8});
        indptr.fill([&](int64_t b) { return double(bounds[size_t(b)]); });
        segment_packbits({x, indptr, out, out_indptr, order}, at(level));
        const reference::SegmentPackBits expected = reference::segment_packbits({x, indptr, out, out_indptr, order});
        std::vector<uint8_t> padded = expected.out;
        padded.resize(20003 / 8 + 8, 0xff);  // what the tensor held before
        EXPECT_EQ(bytes_of(out), padded);
        for (int64_t b = 0; b < 9; ++b)
          EXPECT_EQ(reference::element(out_indptr, b), double(expected.out_indptr[size_t(b)]));
      }
}

TEST(SegmentPackBits, NoSegmentsAreLegal) {
  Tensor x(DType::kBool, {0}), indptr(DType::kI32, {1}), out(DType::kU8, {0}), out_indptr(DType::kI32, {1});
  indptr.set(0, 0);
  segment_packbits({x, indptr, out, out_indptr});
  EXPECT_EQ(reference::element(out_indptr, 0), 0);
}

TEST(SegmentPackBitsCheck, NamesWhatIsWrong) {
  Tensor x(DType::kBool, {20}), indptr(DType::kI32, {3}), out(DType::kU8, {2}), out_indptr(DType::kI32, {3});
  indptr.set(0, 0), indptr.set(1, 9), indptr.set(2, 20);
  EXPECT_EQ(error_of([&] {
              segment_packbits({x, indptr, out, out_indptr});
            }),
            "segment_packbits: out dim 0 (num_bytes) is 2, expected 4 or more");
  indptr.set(2, 21);
  EXPECT_EQ(error_of([&] {
              segment_packbits({x, indptr, out, out_indptr});
            }),
            "segment_packbits: indptr[2] is 21, expected 9 to 20");
}

TEST(SegmentPackBitsCheck, RefusesEveryBrokenRule) {
  Tensor x(DType::kBool, {20}), indptr(DType::kI32, {3}), out(DType::kU8, {4}), out_indptr(DType::kI32, {3});
  expect_every_break_refused(kSegmentPackBitsSchema, {x, indptr, out, out_indptr},
                             [&](const std::vector<TensorView>& t) {
                               check(SegmentPackBitsArgs{t[0], t[1], t[2], t[3]});
                             });
}

}  // namespace
}  // namespace fulmen::testing
