// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/layernorm.h>
#include <fulmen/reference/layernorm.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Case {
  DType dtype, weight_dtype, out_dtype;
  std::vector<int64_t> shape;
  int64_t row_padding = 0;
  double mean = 0;
};

struct Problem {
  Tensor input, gamma, beta, out, out_scale;
  LayerNormArgs args;
  explicit Problem(const Case& c)
      : input(c.dtype, c.shape, c.row_padding),
        gamma(c.weight_dtype, {c.shape.back()}),
        beta(c.weight_dtype, {c.shape.back()}),
        out(c.out_dtype, c.shape, c.row_padding),
        out_scale(DType::kF32, {1}) {
    input.fill_normal(1, 3);
    if (c.mean != 0) input.fill([&](int64_t i) { return reference::element(input, i) + c.mean; });
    gamma.fill_normal(2);
    beta.fill_normal(3);
    out_scale.set(0, 0.05);
    args = {.input = input, .gamma = gamma, .beta = beta, .out = out};
    if (kFp8.has(c.out_dtype)) args.out_scale = out_scale;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (int64_t n : {1, 3, 8, 17, 64, 111, 256, 1000, 4096}) all.push_back({t, DType::kF32, t, {5, n}, n % 3});
    all.push_back({t, t, t, {3, 4, 130}, 2});
    for (DType o : {DType::kE4M3, DType::kE5M2}) all.push_back({t, DType::kF32, o, {4, 333}, 3});
  }
  all.push_back({DType::kF32, DType::kF32, DType::kF32, {5, 1024}, 0, 1000});  // where E[x²] − E[x]² would cancel
  all.push_back({DType::kF32, DType::kF32, DType::kF32, {2000, 16}});
  return all;
}

TEST(LayerNorm, StaysWithinTheReferencesBoundAtEveryLevel) {
  double worst = 0;
  for (const Case& c : cases()) {
    Problem p(c);
    const reference::Values expected = reference::layernorm(p.args);
    for (CpuLevel level : levels()) {
      p.out.poison(0xff);
      layernorm(p.args, at(level));
      EXPECT_TRUE(within(p.out, expected)) << runtime::name_of(level) << " " << name_of(c.dtype) << " to "
                                           << name_of(c.out_dtype) << ", hidden " << c.shape.back();
      worst = std::max(worst, worst_ratio(p.out, expected));
    }
  }
  RecordProperty("worst_ratio", std::to_string(worst));
}

TEST(LayerNorm, WorksInPlace) {
  Problem p({DType::kBF16, DType::kF32, DType::kBF16, {7, 300}});
  const reference::Values expected = reference::layernorm(p.args);
  p.args.out = p.input;
  layernorm(p.args);
  EXPECT_TRUE(within(p.input, expected));
}

TEST(LayerNorm, SlotsBetweenRowsAreNeitherReadNorWritten) {
  for (CpuLevel level : levels()) {
    Problem p({DType::kF32, DType::kF32, DType::kF32, {6, 50}, 14});
    Problem q({DType::kF32, DType::kF32, DType::kF32, {6, 50}, 14});
    for (int64_t row = 0; row < 6; ++row)
      for (int64_t i = 50; i < 64; ++i) q.input.data<float>()[row * 64 + i] = 1e30f;
    layernorm(p.args, at(level));
    layernorm(q.args, at(level));
    EXPECT_TRUE(p.out.same_bytes(q.out));
  }
}

TEST(LayerNorm, ZeroRowsAreLegal) {
  Problem p({DType::kF32, DType::kF32, DType::kF32, {0, 64}});
  EXPECT_NO_THROW(layernorm(p.args));
}

TEST(LayerNorm, ReferenceCatchesSeededDefects) {
  Problem p({DType::kF32, DType::kF32, DType::kF32, {4, 512}});
  const reference::Values expected = reference::layernorm(p.args);
  p.args.eps = 1e-3f;
  layernorm(p.args);
  EXPECT_FALSE(within(p.out, expected));  // another eps
  p.args.eps = 1e-6f;
  p.input.fill([&](int64_t i) { return reference::element(p.input, i) + (i % 512 == 0 ? 1e-2 : 0); });
  layernorm(p.args);
  EXPECT_FALSE(within(p.out, expected));  // a mean off by 2e-5
}

TEST(LayerNormCheck, NamesWhatIsWrong) {
  Problem p({DType::kBF16, DType::kF32, DType::kBF16, {4, 64}});
  LayerNormArgs a = p.args;
  a.beta.shape[0] = 63;
  EXPECT_EQ(error_of([&] { layernorm(a); }), "layernorm: beta dim 0 (hidden_size) is 63, expected 64");
  a = p.args;
  a.beta.dtype = DType::kF16;
  EXPECT_EQ(error_of([&] { layernorm(a); }), "layernorm: beta dtype differs from gamma's");
  a = p.args;
  a.gamma.dtype = DType::kF16;
  EXPECT_EQ(error_of([&] { layernorm(a); }), "layernorm: gamma dtype is float16, expected input's or float32");
}

TEST(LayerNormCheck, RefusesEveryBrokenRule) {
  Problem p({DType::kF32, DType::kF32, DType::kE5M2, {4, 64}});
  const LayerNormArgs& v = p.args;
  expect_every_break_refused(kLayerNormSchema, {v.input, v.gamma, v.beta, v.out, v.out_scale},
                             [&](const std::vector<TensorView>& t) {
                               LayerNormArgs a = v;
                               a.input = t[0], a.gamma = t[1], a.beta = t[2], a.out = t[3], a.out_scale = t[4];
                               check(a);
                             });
}

}  // namespace
}  // namespace fulmen::testing
