// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/reference/fused_add_rmsnorm.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Case {
  DType dtype, weight_dtype, out_dtype;
  std::vector<int64_t> shape;
  int64_t row_padding = 0;
  float weight_bias = 0;
};

struct Problem {
  Tensor input, residual, weight, out, out_scale;
  FusedAddRmsNormArgs args;
  explicit Problem(const Case& c)
      : input(c.dtype, c.shape, c.row_padding),
        residual(c.dtype, c.shape, c.row_padding),
        weight(c.weight_dtype, {c.shape.back()}),
        out(c.out_dtype, c.shape, c.row_padding),
        out_scale(DType::kF32, {1}) {
    input.fill_normal(1, 3);
    residual.fill_normal(2, 5);
    weight.fill_normal(3);
    out_scale.set(0, 0.03);
    args = {.input = input, .residual = residual, .weight = weight, .out = out, .weight_bias = c.weight_bias};
    if (kFp8.has(c.out_dtype)) args.out_scale = out_scale;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16})
    for (int64_t n : {1, 3, 8, 17, 64, 111, 256, 1000, 4096}) all.push_back({t, t, t, {5, n}, n % 3, float(n % 2)});
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16})
    for (DType o : {DType::kE4M3, DType::kE5M2}) all.push_back({t, t, o, {4, 333}, 3});
  all.push_back({DType::kBF16, DType::kF32, DType::kBF16, {3, 4, 128}, 16, 1});
  all.push_back({DType::kF32, DType::kF32, DType::kF32, {2000, 16}});
  return all;
}

TEST(FusedAddRmsNorm, StaysWithinTheReferencesBoundAtEveryLevel) {
  double worst = 0;
  for (const Case& c : cases()) {
    for (CpuLevel level : levels()) {
      Problem p(c);
      const reference::FusedAddRmsNorm expected = reference::fused_add_rmsnorm(p.args);
      fused_add_rmsnorm(p.args, at(level));
      const std::string where = std::string(runtime::name_of(level)) + " " + name_of(c.dtype) + " to " +
                                name_of(c.out_dtype) + ", hidden " + std::to_string(c.shape.back());
      EXPECT_TRUE(within(p.out, expected.out)) << where;
      EXPECT_TRUE(within(p.residual, expected.residual)) << where;
      worst = std::max({worst, worst_ratio(p.out, expected.out), worst_ratio(p.residual, expected.residual)});
    }
  }
  RecordProperty("worst_ratio", std::to_string(worst));
}

TEST(FusedAddRmsNorm, WritesOverItsInputAsFlashInferDoes) {
  Problem p({DType::kBF16, DType::kBF16, DType::kBF16, {7, 300}});
  const reference::FusedAddRmsNorm expected = reference::fused_add_rmsnorm(p.args);
  p.args.out = p.input;
  fused_add_rmsnorm(p.args);
  EXPECT_TRUE(within(p.input, expected.out));
  EXPECT_TRUE(within(p.residual, expected.residual));
}

TEST(FusedAddRmsNorm, SlotsBetweenRowsAreNeitherReadNorWritten) {
  Problem p({DType::kF16, DType::kF16, DType::kF16, {6, 50}, 14});
  Problem q({DType::kF16, DType::kF16, DType::kF16, {6, 50}, 14});
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t i = 50; i < 64; ++i) q.input.data<f16>()[row * 64 + i] = to_f16(1e4f);
  fused_add_rmsnorm(p.args);
  fused_add_rmsnorm(q.args);
  EXPECT_TRUE(p.out.same_bytes(q.out));
  EXPECT_TRUE(p.residual.same_bytes(q.residual));
}

TEST(FusedAddRmsNorm, ZeroRowsAreLegal) {
  Problem p({DType::kF32, DType::kF32, DType::kF32, {0, 64}});
  EXPECT_NO_THROW(fused_add_rmsnorm(p.args));
}

TEST(FusedAddRmsNorm, ReferenceCatchesSeededDefects) {
  const Case c{DType::kF32, DType::kF32, DType::kF32, {4, 512}};
  Problem p(c);
  const reference::FusedAddRmsNorm expected = reference::fused_add_rmsnorm(p.args);
  fused_add_rmsnorm(p.args);
  fused_add_rmsnorm(p.args);  // adds twice
  EXPECT_FALSE(within(p.out, expected.out));
  EXPECT_FALSE(within(p.residual, expected.residual));
  Problem q(c);
  q.args.eps = 1e-3f;
  fused_add_rmsnorm(q.args);
  EXPECT_FALSE(within(q.out, expected.out));
}

TEST(FusedAddRmsNormCheck, NamesWhatIsWrong) {
  Problem p({DType::kF32, DType::kF32, DType::kF32, {4, 64}});
  FusedAddRmsNormArgs a = p.args;
  a.residual.shape[0] = 5;
  EXPECT_EQ(error_of([&] { fused_add_rmsnorm(a); }), "fused_add_rmsnorm: residual dim 0 (num_tokens) is 5, expected 4");
  a = p.args;
  a.out = a.residual;
  EXPECT_EQ(
      error_of([&] { fused_add_rmsnorm(a); }),
      "fused_add_rmsnorm: residual shares memory with out: it begins 0 bytes behind its start, expected memory of its "
      "own");
  a = p.args;
  a.out_scale = p.out_scale;
  EXPECT_EQ(error_of([&] { fused_add_rmsnorm(a); }),
            "fused_add_rmsnorm: out_scale is given, expected none: out is not FP8");
}

TEST(FusedAddRmsNormCheck, RefusesEveryBrokenRule) {
  Problem p({DType::kF32, DType::kF32, DType::kE4M3, {4, 64}});
  const FusedAddRmsNormArgs& v = p.args;
  expect_every_break_refused(kFusedAddRmsNormSchema, {v.input, v.residual, v.weight, v.out, v.out_scale},
                             [&](const std::vector<TensorView>& t) {
                               FusedAddRmsNormArgs a = v;
                               a.input = t[0], a.residual = t[1], a.weight = t[2], a.out = t[3], a.out_scale = t[4];
                               check(a);
                             });
}

}  // namespace
}  // namespace fulmen::testing
