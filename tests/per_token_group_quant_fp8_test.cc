// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/reference/per_token_group_quant_fp8.h>

#include <limits>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

constexpr DType kInputs[] = {DType::kF32, DType::kF16, DType::kBF16}, kOutputs[] = {DType::kE4M3, DType::kE5M2};

struct GroupProblem {
  Tensor input, out, scales;
  PerTokenGroupQuantFp8Args args;
  GroupProblem(DType in, DType to, int64_t num_tokens, int64_t hidden_size, int64_t group_size, bool group_major,
               int64_t row_padding = 0)
      : input(in, {num_tokens, hidden_size}, row_padding),
        out(to, {num_tokens, hidden_size}, row_padding),
        scales(DType::kF32,
               group_major ? std::vector<int64_t>{hidden_size / group_size, num_tokens}
                           : std::vector<int64_t>{num_tokens, hidden_size / group_size},
               3) {
    input.fill_normal(1, 3);
    args = {.input = input, .out = out, .scales = scales, .group_size = group_size, .group_major_scales = group_major};
  }
};

TEST(PerTokenGroupQuantFp8, StaysWithinTheReferencesBoundAtEveryLevel) {
  double worst = 0;
  for (DType in : kInputs)
    for (DType to : kOutputs)
      for (int64_t group_size : {1, 7, 32, 64, 128})
        for (bool group_major : {false, true})
          for (bool pow2 : {false, true})
            for (CpuLevel level : levels()) {
              GroupProblem p(in, to, 5, group_size * 6, group_size, group_major, 5);
              p.args.pow2_scales = pow2;
              const reference::QuantFp8 expected = reference::per_token_group_quant_fp8(p.args);
              per_token_group_quant_fp8(p.args, at(level));
              EXPECT_TRUE(within(p.out, expected.out)) << runtime::name_of(level) << " group " << group_size;
              EXPECT_TRUE(within(p.scales, expected.scales)) << runtime::name_of(level) << " group " << group_size;
              worst = std::max(worst, worst_ratio(p.out, expected.out));
            }
  RecordProperty("worst_ratio", std::to_string(worst));
}

TEST(PerTokenGroupQuantFp8, LargestElementBecomesTheLargestFp8) {
  GroupProblem p(DType::kF32, DType::kE4M3, 1, 256, 128, false);
  p.input.fill([](int64_t i) { return i == 5 ? -896 : i == 200 ? 224 : 1; });
  per_token_group_quant_fp8(p.args);
  EXPECT_EQ(reference::element(p.scales, 0), 2);
  EXPECT_EQ(reference::element(p.scales, 1), 0.5);
  EXPECT_EQ(reference::element(p.out, 5), -448);
  EXPECT_EQ(reference::element(p.out, 200), 448);
}

TEST(PerTokenGroupQuantFp8, ZerosTinyValuesAndNothingAreLegal) {
  GroupProblem p(DType::kF32, DType::kE4M3, 2, 64, 32, false);
  p.input.fill([](int64_t i) { return i < 32 ? 0 : 1e-30; });
  per_token_group_quant_fp8(p.args);
  EXPECT_EQ(float(reference::element(p.scales, 0)), 1e-10f / 448);
  EXPECT_EQ(reference::element(p.out, 40), 0);
  p.args.eps = std::numeric_limits<float>::denorm_min();
  per_token_group_quant_fp8(p.args);
  EXPECT_FALSE(std::isnan(reference::element(p.out, 40)));
  EXPECT_NO_THROW(per_token_group_quant_fp8(GroupProblem(DType::kF32, DType::kE4M3, 0, 64, 32, false).args));
  EXPECT_NO_THROW(per_token_group_quant_fp8(GroupProblem(DType::kF32, DType::kE4M3, 3, 0, 32, false).args));
}

TEST(PerTokenGroupQuantFp8, ReferenceCatchesSeededDefects) {
  GroupProblem p(DType::kF32, DType::kE4M3, 4, 256, 128, false);
  const reference::QuantFp8 expected = reference::per_token_group_quant_fp8(p.args);
  GroupProblem q(DType::kF32, DType::kE4M3, 4, 256, 64, false);  // smaller groups than asked for
  per_token_group_quant_fp8(q.args);
  EXPECT_FALSE(within(q.out, expected.out));
}

TEST(PerTokenGroupQuantFp8Check, NamesWhatIsWrong) {
  GroupProblem p(DType::kF32, DType::kE4M3, 4, 256, 128, false);
  PerTokenGroupQuantFp8Args a = p.args;
  a.group_size = 100;
  EXPECT_EQ(error_of([&] { per_token_group_quant_fp8(a); }),
            "per_token_group_quant_fp8: group_size is 100, expected a divisor of hidden_size 256");
  a = p.args;
  a.group_major_scales = true;
  EXPECT_EQ(error_of([&] { per_token_group_quant_fp8(a); }),
            "per_token_group_quant_fp8: scales dim 0 is 4, expected 2");
}

TEST(PerTokenGroupQuantFp8Check, RefusesEveryBrokenRule) {
  GroupProblem p(DType::kF32, DType::kE4M3, 4, 256, 128, false);
  expect_every_break_refused(kPerTokenGroupQuantFp8Schema, {p.args.input, p.args.out, p.args.scales},
                             [&](const std::vector<TensorView>& t) {
                               PerTokenGroupQuantFp8Args a = p.args;
                               a.input = t[0], a.out = t[1], a.scales = t[2];
                               check(a);
                             });
}

}  // namespace
}  // namespace fulmen::testing
