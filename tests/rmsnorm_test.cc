// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/reference/rmsnorm.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Case {
  DType dtype, weight_dtype;
  std::vector<int64_t> shape;
  int64_t row_padding = 0;
  float weight_bias = 0;
};

struct Problem {
  Tensor input, weight, out;
  RmsNormArgs args;
  explicit Problem(const Case& c)
      : input(c.dtype, c.shape, c.row_padding),
        weight(c.weight_dtype, {c.shape.back()}),
        out(c.dtype, c.shape, c.row_padding) {
    input.fill_normal(1, 3);
    weight.fill_normal(2);
    args = {.input = input, .weight = weight, .out = out, .weight_bias = c.weight_bias};
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16})
    for (int64_t n : {1, 3, 8, 64, 111, 256, 1000, 4096}) all.push_back({t, t, {5, n}, n % 3, float(n % 2)});
  all.push_back({DType::kBF16, DType::kF32, {3, 4, 128}, 16, 1});  // heads of a token, f32 weights
  all.push_back({DType::kF16, DType::kF16, {1, 8192}});
  all.push_back({DType::kF32, DType::kF32, {2000, 16}});  // more rows than chunks
  return all;
}

TEST(RmsNorm, StaysWithinTheReferencesBoundAtEveryLevel) {
  for (const Case& c : cases()) {
    Problem p(c);
    const reference::Values expected = reference::rmsnorm(p.args);
    for (CpuLevel level : levels()) {
      p.out.poison(0xff);
      rmsnorm(p.args, at(level));
      EXPECT_TRUE(within(p.out, expected))
          << runtime::name_of(level) << " " << name_of(c.dtype) << " hidden " << c.shape.back();
    }
  }
}

TEST(RmsNorm, QuantizesItsOutputToFp8) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (DType out_dtype : {DType::kE4M3, DType::kE5M2})
      for (CpuLevel level : levels()) {
        Problem p({dtype, dtype, {5, 333}, 3});
        Tensor out(out_dtype, {5, 333}, 5), out_scale(DType::kF32, {1});
        out_scale.set(0, dtype == DType::kF32 ? 0.01 : 0.002);  // the second saturates e4m3
        p.args.out = out, p.args.out_scale = out_scale;
        rmsnorm(p.args, at(level));
        EXPECT_TRUE(within(out, reference::rmsnorm(p.args))) << runtime::name_of(level) << " " << name_of(out_dtype);
      }
}

TEST(RmsNorm, WorksInPlace) {
  Problem p({DType::kBF16, DType::kBF16, {7, 300}});
  const reference::Values expected = reference::rmsnorm(p.args);
  p.args.out = p.input;
  rmsnorm(p.args);
  EXPECT_TRUE(within(p.input, expected));
}

TEST(RmsNorm, SlotsBetweenRowsAreNeitherReadNorWritten) {
  Problem p({DType::kF32, DType::kF32, {6, 50}, 14});
  Problem q({DType::kF32, DType::kF32, {6, 50}, 14});
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t i = 50; i < 64; ++i) q.input.data<float>()[row * 64 + i] = 1e30f;
  rmsnorm(p.args);
  rmsnorm(q.args);
  EXPECT_TRUE(p.out.same_bytes(q.out));  // the padding of both outputs is still 0xff
}

TEST(RmsNorm, ZeroRowsAreLegal) {
  Problem p({DType::kF32, DType::kF32, {0, 64}});
  EXPECT_NO_THROW(rmsnorm(p.args));
}

TEST(RmsNorm, ReferenceCatchesSeededDefects) {
  Problem p({DType::kF32, DType::kF32, {4, 512}});
  const reference::Values expected = reference::rmsnorm(p.args);
  p.args.eps = 1e-3f;
  rmsnorm(p.args);
  EXPECT_FALSE(within(p.out, expected));  // another eps
  p.args.eps = 1e-6f;
  p.args.weight_bias = 1e-4f;
  rmsnorm(p.args);
  EXPECT_FALSE(within(p.out, expected));  // weights off by 1e-4
}

TEST(RmsNormCheck, NamesWhatIsWrong) {
  Problem p({DType::kF32, DType::kF32, {4, 64}});
  RmsNormArgs a = p.args;
  a.weight.shape[0] = 63;
  EXPECT_EQ(error_of([&] { rmsnorm(a); }), "rmsnorm: weight dim 0 (hidden_size) is 63, expected 64");
  a = p.args;
  a.out.dtype = DType::kF16;
  EXPECT_EQ(error_of([&] { rmsnorm(a); }), "rmsnorm: out dtype differs from input's");
  a = p.args;
  a.eps = 0;
  EXPECT_EQ(error_of([&] { rmsnorm(a); }), "rmsnorm: eps is 0.000000, expected a positive number");
  Tensor out_scale(DType::kF32, {1});
  a = p.args;
  a.out_scale = out_scale;
  EXPECT_EQ(error_of([&] { rmsnorm(a); }), "rmsnorm: out_scale is given, expected none: out is not FP8");
  Tensor out(DType::kE4M3, {4, 64});
  a.out = out;
  out_scale.set(0, -1);
  EXPECT_EQ(error_of([&] { rmsnorm(a); }), "rmsnorm: out_scale is -1.000000, expected a positive number");
}

TEST(RmsNormCheck, RefusesEveryBrokenRule) {
  Problem p({DType::kF32, DType::kF32, {4, 64}});
  expect_every_break_refused(kRmsNormSchema, {p.args.input, p.args.weight, p.args.out},
                             [&](const std::vector<TensorView>& t) {
                               RmsNormArgs a = p.args;
                               a.input = t[0], a.weight = t[1], a.out = t[2];
                               check(a);
                             });
}

}  // namespace
}  // namespace fulmen::testing
