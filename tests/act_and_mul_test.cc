// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/reference/act_and_mul.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh};

struct Problem {
  Tensor input, out;
  ActAndMulArgs args;
  Problem(DType dtype, std::vector<int64_t> shape, int64_t row_padding = 0)
      : input(dtype, doubled(shape), row_padding), out(dtype, shape, row_padding) {
    input.fill_normal(1, 3);
    args = {.input = input, .out = out};
  }
  static std::vector<int64_t> doubled(std::vector<int64_t> shape) {
    shape.back() *= 2;
    return shape;
  }
};

TEST(ActAndMul, StaysWithinTheReferencesBoundAtEveryLevel) {
  double worst = 0;
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (int64_t n : {1, 3, 8, 17, 64, 111, 1000, 5000})
      for (Activation activation : kActivations) {
        Problem p(dtype, {5, n}, n % 3);
        p.args.activation = activation;
        const reference::Values expected = reference::act_and_mul(p.args);
        for (CpuLevel level : levels()) {
          p.out.poison(0xff);
          act_and_mul(p.args, at(level));
          EXPECT_TRUE(within(p.out, expected)) << runtime::name_of(level) << " " << name_of(dtype) << " activation "
                                               << int32_t(activation) << " n " << n;
          worst = std::max(worst, worst_ratio(p.out, expected));
        }
      }
  RecordProperty("worst_ratio", std::to_string(worst));
}

// The functions themselves, over the whole range where f32 tells results apart, with up = 1.
TEST(ActAndMul, ActivationsKeepRelativeAccuracyOverTheWholeRange) {
  constexpr int64_t kCount = 40000;
  for (Activation activation : kActivations) {
    Problem p(DType::kF32, {1, kCount});
    p.input.fill([](int64_t i) { return i < kCount ? -100 + 0.005 * double(i) : 1; });
    p.args.activation = activation;
    const reference::Values expected = reference::act_and_mul(p.args);
    for (CpuLevel level : levels()) {
      act_and_mul(p.args, at(level));
      EXPECT_TRUE(within(p.out, expected)) << runtime::name_of(level) << " activation " << int32_t(activation);
      RecordProperty("worst_ratio_" + std::to_string(int32_t(activation)) + "_" + runtime::name_of(level),
                     std::to_string(worst_ratio(p.out, expected)));
    }
  }
}

TEST(ActAndMul, NanStaysNanAndHugeValuesDoNot) {
  for (Activation activation : kActivations)
    for (CpuLevel level : levels()) {
      Problem p(DType::kF32, {1, 20});
      p.input.fill([](int64_t i) { return i == 3 ? NAN : i == 4 ? -1e30 : i == 5 ? 1e30 : 1; });
      p.args.activation = activation;
      act_and_mul(p.args, at(level));
      const float* out = p.out.data<float>();
      EXPECT_TRUE(std::isnan(out[3]));
      EXPECT_LE(std::abs(out[4]), 1e-5f);  // the limit is 0
      EXPECT_EQ(out[5], 1e30f);
      EXPECT_FALSE(std::isnan(out[2]));
    }
}

TEST(ActAndMul, TokensMayHaveHeads) {
  Problem p(DType::kBF16, {3, 4, 100}, 20);
  act_and_mul(p.args);
  EXPECT_TRUE(within(p.out, reference::act_and_mul(p.args)));
}

TEST(ActAndMul, WorksOverItsGate) {
  Problem p(DType::kF32, {6, 2500});
  const reference::Values expected = reference::act_and_mul(p.args);
  TensorView gate = p.input;
  gate.shape[1] = 2500;
  p.args.out = gate;
  act_and_mul(p.args);
  EXPECT_LE(worst_ratio(gate, expected), 1);
}

TEST(ActAndMul, SlotsBetweenRowsAreNeitherReadNorWritten) {
  Problem p(DType::kF32, {6, 25}, 14), q(DType::kF32, {6, 25}, 14);
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t i = 50; i < 64; ++i) q.input.data<float>()[row * 64 + i] = 1e30f;
  act_and_mul(p.args);
  act_and_mul(q.args);
  EXPECT_TRUE(p.out.same_bytes(q.out));
}

TEST(ActAndMul, ZeroSizesAreLegal) {
  EXPECT_NO_THROW(act_and_mul(Problem(DType::kF32, {0, 64}).args));
  EXPECT_NO_THROW(act_and_mul(Problem(DType::kF32, {4, 0}).args));
}

TEST(ActAndMul, ReferenceCatchesSeededDefects) {
  Problem p(DType::kF32, {4, 512});
  p.args.activation = Activation::kGelu;
  const reference::Values expected = reference::act_and_mul(p.args);
  p.args.activation = Activation::kGeluTanh;  // a much used approximation of it
  act_and_mul(p.args);
  EXPECT_FALSE(within(p.out, expected));
  p.args.activation = Activation::kGelu;
  p.input.fill([&](int64_t i) { return reference::element(p.input, i) * (1 + 2e-6); });
  act_and_mul(p.args);
  EXPECT_FALSE(within(p.out, expected));
}

TEST(ActAndMulCheck, NamesWhatIsWrong) {
  Problem p(DType::kF32, {4, 64});
  ActAndMulArgs a = p.args;
  a.input.shape[1] = 127;
  EXPECT_EQ(error_of([&] { act_and_mul(a); }), "act_and_mul: input dim 1 (2*hidden_size) is 127, which no size fits");
  a = p.args;
  a.out.dtype = DType::kF16;
  EXPECT_EQ(error_of([&] { act_and_mul(a); }), "act_and_mul: out dtype differs from input's");
  a = p.args;
  a.activation = Activation(7);
  EXPECT_EQ(error_of([&] { act_and_mul(a); }),
            "act_and_mul: activation is 7, expected silu (0), gelu (1) or gelu_tanh (2)");
}

TEST(ActAndMulCheck, RefusesEveryBrokenRule) {
  Problem p(DType::kF32, {4, 64});
  expect_every_break_refused(kActAndMulSchema, {p.args.input, p.args.out}, [&](const std::vector<TensorView>& t) {
    ActAndMulArgs a = p.args;
    a.input = t[0], a.out = t[1];
    check(a);
  });
}

}  // namespace
}  // namespace fulmen::testing
