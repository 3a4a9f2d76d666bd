// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/softmax.h>
#include <fulmen/reference/softmax.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/tokens.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Problem {
  Tensor logits, out, status;
  SoftmaxArgs args;
  Problem(DType dtype, int64_t num_rows, int64_t vocab_size, Shape shape)
      : logits(dtype, {num_rows, vocab_size}, 1),
        out(DType::kF32, {num_rows, vocab_size}, 6),
        status(DType::kI32, {num_rows}) {
    fill_tokens(logits, TokenValues::kLogits, shape, uint64_t(vocab_size));
    args = {.logits = logits, .out = out, .status = status};
  }
};

TEST(Softmax, StaysWithinTheReferencesBoundAtEveryLevelWithTheSameBits) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (Shape shape : kShapes)
      for (int64_t vocab_size : {1, 5, 64, 1023, 20000})
        for (float temperature : {0.f, 0.05f, 0.7f, 1.f, 20.f}) {
          Problem p(dtype, 3, vocab_size, shape);
          p.args.temperature = temperature;
          const reference::SoftmaxReference expected = reference::softmax(p.args);
          Tensor first;
          for (CpuLevel level : levels()) {
            p.out.poison(0xff);
            softmax(p.args, at(level));
            EXPECT_TRUE(within(p.out, expected.out)) << runtime::name_of(level) << " " << name_of(dtype) << " vocab "
                                                     << vocab_size << " temperature " << temperature;
            if (level == CpuLevel::kScalar) first = p.out;
            EXPECT_TRUE(p.out.same_bytes(first)) << runtime::name_of(level);
          }
        }
}

TEST(Softmax, TemperaturePerRowAndInPlace) {
  Problem p(DType::kF32, 4, 300, Shape::kNormal);
  Tensor temperature(DType::kF32, {4});
  temperature.set(0, 0), temperature.set(1, 0.5), temperature.set(2, 2), temperature.set(3, -1);
  p.args.temperature_arr = temperature;
  const reference::SoftmaxReference expected = reference::softmax(p.args);
  p.args.out = p.logits;
  softmax(p.args);
  EXPECT_TRUE(within(p.logits, expected.out));
  for (size_t row = 0; row < 4; ++row) EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(expected.status[row]));
}

TEST(Softmax, BadRowsHaveAStatus) {
  Problem p(DType::kF32, 5, 100, Shape::kNormal);
  for (int64_t i = 0; i < 100; ++i) p.logits.set(100 + i, -INFINITY);
  p.logits.set(2 * 100 + 50, NAN);
  p.logits.set(3 * 100 + 50, INFINITY), p.logits.set(3 * 100 + 51, INFINITY);
  const RowStatus expected[] = {RowStatus::kOk, RowStatus::kEmpty, RowStatus::kNan, RowStatus::kInfinite,
                                RowStatus::kOk};
  for (CpuLevel level : levels()) {
    p.out.poison(0xff);
    softmax(p.args, at(level));
    for (size_t row = 0; row < 5; ++row) EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(expected[row]));
    for (int64_t i = 0; i < 100; ++i) {
      EXPECT_EQ(reference::element(p.out, 100 + i), 0);
      EXPECT_TRUE(std::isnan(reference::element(p.out, 200 + i)));
      EXPECT_EQ(reference::element(p.out, 300 + i), i == 50 || i == 51 ? 0.5 : 0);
      EXPECT_GT(reference::element(p.out, 400 + i), 0);
    }
  }
}

TEST(Softmax, ReferenceCatchesSeededDefects) {
  Problem p(DType::kF32, 2, 500, Shape::kNormal);
  const reference::Values expected = reference::softmax(p.args).out;
  p.args.temperature = 1.0001f;
  softmax(p.args);
  EXPECT_FALSE(within(p.out, expected)) << "another temperature";
  p.args.temperature = 1;
  p.logits.set(499, -INFINITY);
  softmax(p.args);
  EXPECT_FALSE(within(p.out, expected)) << "a token dropped";
}

TEST(SoftmaxCheck, RefusesEveryBrokenRule) {
  Problem p(DType::kF32, 4, 64, Shape::kNormal);
  Tensor temperature(DType::kF32, {4});
  expect_every_break_refused(kSoftmaxSchema, {p.args.logits, p.args.out, p.args.status, temperature},
                             [&](const std::vector<TensorView>& t) {
                               check(SoftmaxArgs{.logits = t[0], .out = t[1], .status = t[2], .temperature_arr = t[3]});
                             });
  Problem zero(DType::kF32, 0, 64, Shape::kNormal);
  EXPECT_NO_THROW(softmax(zero.args));
}

}  // namespace
}  // namespace fulmen::testing
