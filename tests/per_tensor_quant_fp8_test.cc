// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/reference/per_tensor_quant_fp8.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

constexpr DType kInputs[] = {DType::kF32, DType::kF16, DType::kBF16}, kOutputs[] = {DType::kE4M3, DType::kE5M2};

struct TensorProblem {
  Tensor input, out, scale;
  PerTensorQuantFp8Args args;
  TensorProblem(DType in, DType to, std::vector<int64_t> shape, bool dynamic, int64_t row_padding = 0)
      : input(in, shape, row_padding), out(to, shape, row_padding), scale(DType::kF32, {1}) {
    input.fill_normal(1, 3);
    if (!dynamic) scale.set(0, 0.0123);  // saturates the largest in e4m3
    args = {.input = input, .out = out, .scale = scale, .dynamic = dynamic};
  }
};

TEST(PerTensorQuantFp8, StaysWithinTheReferencesBoundAtEveryLevel) {
  double worst = 0;
  for (DType in : kInputs)
    for (DType to : kOutputs)
      for (int64_t n : {1, 3, 17, 64, 333, 5000})
        for (bool dynamic : {false, true})
          for (CpuLevel level : levels()) {
            TensorProblem p(in, to, {5, n}, dynamic, n % 3);
            const reference::QuantFp8 expected = reference::per_tensor_quant_fp8(p.args);
            per_tensor_quant_fp8(p.args, at(level));
            EXPECT_TRUE(within(p.out, expected.out)) << runtime::name_of(level) << " " << name_of(in) << " " << n;
            EXPECT_TRUE(within(p.scale, expected.scales)) << runtime::name_of(level) << " " << name_of(in) << " " << n;
            worst = std::max(worst, worst_ratio(p.out, expected.out));
          }
  RecordProperty("worst_ratio", std::to_string(worst));
}

// Every f32 whose low bits matter to the rounding: all levels give the scalar conversion's bits.
template <class T>
void expect_exact_rounding(DType to) {
  std::vector<float> values;
  for (uint32_t high = 0; high < 0x10000; ++high)
    for (uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0xffffu}) values.push_back(bit_cast<float>(high << 16 | low));
  const int64_t n = int64_t(values.size()) - 3;  // a tail at every level
  for (CpuLevel level : levels()) {
    Tensor out(to, {1, n}), one(DType::kF32, {1});
    one.set(0, 1);
    per_tensor_quant_fp8({.input = view_of(values.data(), {1, n}), .out = out, .scale = one}, at(level));
    int64_t wrong = 0;
    for (int64_t i = 0; i < n; ++i) wrong += out.data<T>()[i].bits != from_f32<T>(values[size_t(i)]).bits;
    EXPECT_EQ(wrong, 0) << runtime::name_of(level) << " " << name_of(to);
    EXPECT_TRUE(out.guards_intact());
  }
}
TEST(PerTensorQuantFp8, RoundsToNearestEvenBitForBit) {
  expect_exact_rounding<e4m3>(DType::kE4M3);
  expect_exact_rounding<e5m2>(DType::kE5M2);
}

TEST(PerTensorQuantFp8, NanDoesNotSpoilTheScale) {
  for (CpuLevel level : levels()) {
    TensorProblem p(DType::kF32, DType::kE4M3, {2, 50}, true);
    p.input.fill([](int64_t i) { return i == 7 || i == 49 ? NAN : i == 8 ? -896 : 1; });
    per_tensor_quant_fp8(p.args, at(level));
    EXPECT_EQ(*p.scale.data<float>(), 2);
    EXPECT_TRUE(std::isnan(reference::element(p.out, 7)));
    EXPECT_EQ(reference::element(p.out, 8), -448);
    EXPECT_EQ(reference::element(p.out, 9), 0.5);
  }
}

TEST(PerTensorQuantFp8, ZerosAndNothingAreLegal) {
  TensorProblem p(DType::kBF16, DType::kE4M3, {3, 40}, true);
  p.input.fill([](int64_t) { return 0; });
  per_tensor_quant_fp8(p.args);
  EXPECT_GT(*p.scale.data<float>(), 0);
  EXPECT_EQ(reference::element(p.out, 39), 0);
  for (std::vector<int64_t> shape : {std::vector<int64_t>{0, 40}, {3, 0}}) {
    TensorProblem none(DType::kBF16, DType::kE4M3, shape, true);
    EXPECT_NO_THROW(per_tensor_quant_fp8(none.args));
    EXPECT_GT(*none.scale.data<float>(), 0);
  }
}

TEST(PerTensorQuantFp8, ReferenceCatchesSeededDefects) {
  TensorProblem p(DType::kF32, DType::kE4M3, {4, 100}, false);
  const reference::QuantFp8 expected = reference::per_tensor_quant_fp8(p.args);
  p.scale.set(0, 0.0123 * 1.01);
  per_tensor_quant_fp8(p.args);
  EXPECT_FALSE(within(p.out, expected.out));
}

TEST(PerTensorQuantFp8Check, NamesWhatIsWrong) {
  TensorProblem p(DType::kF32, DType::kE4M3, {4, 100}, false);
  p.scale.set(0, 0);
  EXPECT_EQ(error_of([&] { per_tensor_quant_fp8(p.args); }),
            "per_tensor_quant_fp8: scale is 0.000000, expected a positive number");
}

TEST(PerTensorQuantFp8Check, RefusesEveryBrokenRule) {
  TensorProblem p(DType::kF32, DType::kE4M3, {4, 100}, false);
  expect_every_break_refused(kPerTensorQuantFp8Schema, {p.args.input, p.args.out, p.args.scale},
                             [&](const std::vector<TensorView>& t) {
                               check(PerTensorQuantFp8Args{.input = t[0], .out = t[1], .scale = t[2]});
                             });
}

}  // namespace
}  // namespace fulmen::testing
