// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/token_filter.h>
#include <fulmen/reference/token_filter.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/token_cases.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Problem {
  Tensor input, out, status;
  TokenFilterArgs args;
  Problem(DType dtype, int64_t batch_size, int64_t vocab_size, TokenValues values, Shape shape)
      : input(dtype, {batch_size, vocab_size}, 5),
        out(dtype, {batch_size, vocab_size}, 2),
        status(DType::kI32, {batch_size}) {
    fill_tokens(input, values, shape, uint64_t(vocab_size));
    args = {.input = input, .out = out, .status = status, .values = values};
  }
};

// Whether the row is right for one of the prefixes that are.
bool row_within(const TokenFilterArgs& a, int64_t row) {
  const reference::RankedRow r =
      reference::ranked_row(a.input, row, a.values, reference::parameters_of(a.filter, 1, row));
  const TensorView out = [&] {
    TensorView v = a.out;
    v.data = v.as<char>() + row * v.strides[0] * size_of(v.dtype);
    v.shape[0] = 1;
    return v;
  }();
  for (int64_t len = r.least; len <= r.most; ++len)
    if (worst_ratio(out, reference::filtered_row(r, len, a.values, a.out.dtype)) <= 1) return true;
  return false;
}

TEST(TokenFilter, KeepsThePrefixOfTheReferenceAtEveryLevel) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (TokenValues values : {TokenValues::kProbs, TokenValues::kLogits})
      for (Shape shape : kShapes)
        for (int64_t vocab_size : {1, 33, 700}) {
          Problem p(dtype, 4, vocab_size, values, shape);
          for (const TokenFilter& f : filters_to_apply(vocab_size)) {
            p.args.filter = f;
            Tensor first;
            for (CpuLevel level : levels()) {
              p.out.poison(0xff);
              token_filter(p.args, at(level));
              EXPECT_TRUE(p.out.guards_intact());
              for (int64_t row = 0; row < 4; ++row)
                EXPECT_TRUE(row_within(p.args, row))
                    << runtime::name_of(level) << " " << name_of(dtype) << " vocab " << vocab_size << " shape "
                    << int(shape) << " top_k " << f.top_k << " top_p " << f.top_p << " row " << row;
              if (level == CpuLevel::kScalar) first = p.out;
              EXPECT_TRUE(p.out.same_bytes(first));
            }
          }
        }
}

TEST(TokenFilter, ManyValuesAndLargeK) {
  for (Shape shape : {Shape::kFlat, Shape::kTied, Shape::kNormal, Shape::kPeaked})
    for (const TokenFilter& f : {TokenFilter{.top_k = 20000}, TokenFilter{.top_p = 0.95f}, TokenFilter{.top_k = 777}}) {
      Problem p(DType::kF32, 1, 60000, TokenValues::kProbs, shape);
      p.args.filter = f;
      token_filter(p.args);
      EXPECT_TRUE(row_within(p.args, 0)) << int(shape) << " " << f.top_k;
    }
}

int64_t num_kept(const Tensor& out) {
  int64_t n = 0;
  for (int64_t i = 0; i < out.view().num_elements(); ++i) {
    const double x = reference::element(out, i);
    n += x != 0 && x != -INFINITY;
  }
  return n;
}

TEST(TokenFilter, TiesAreKeptByIndexUnlessAllAreAskedFor) {
  Problem p(DType::kF32, 1, 8, TokenValues::kLogits, Shape::kFlat);
  const float x[] = {1, 3, 2, 2, -0.f, 2, 0, 2};
  for (int64_t i = 0; i < 8; ++i) p.input.set(i, double(x[i]));
  p.args.filter = {.top_k = 3};
  token_filter(p.args);
  const float inf = INFINITY, expected[] = {-inf, 3, 2, 2, -inf, -inf, -inf, -inf};
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(p.out.data<float>()[i], expected[i]) << i;
  p.args.filter.keep_ties = true;
  token_filter(p.args);
  EXPECT_EQ(num_kept(p.out), 5);
  p.args.filter = {.top_k = 7};  // 0 and -0 are equal: the first is kept
  token_filter(p.args);
  EXPECT_EQ(p.out.data<float>()[4], 0);
  EXPECT_EQ(p.out.data<float>()[6], -inf);
}

TEST(TokenFilter, PerRowNumbersAndInPlace) {
  Problem p(DType::kF32, 3, 100, TokenValues::kProbs, Shape::kNormal);
  Tensor k(DType::kI64, {3}), top_p(DType::kF32, {3});
  k.set(0, 3), k.set(1, 100), k.set(2, 0);
  top_p.set(0, 1), top_p.set(1, 0.5), top_p.set(2, 1);
  p.args.filter = {.top_k_arr = k, .top_p_arr = top_p};
  token_filter(p.args);
  for (int64_t row = 0; row < 3; ++row) EXPECT_TRUE(row_within(p.args, row));
  EXPECT_EQ(p.status.data<int32_t>()[0], int32_t(RowStatus::kOk));
  EXPECT_EQ(p.status.data<int32_t>()[2], int32_t(RowStatus::kBadParameter));
  Problem q(DType::kF32, 3, 100, TokenValues::kProbs, Shape::kNormal);
  q.args.filter = p.args.filter;
  q.args.out = q.input;
  token_filter(q.args);
  for (int64_t i = 0; i < 300; ++i) EXPECT_EQ(reference::element(q.input, i), reference::element(p.out, i));
}

TEST(TokenFilter, BadRows) {
  for (TokenValues values : {TokenValues::kProbs, TokenValues::kLogits}) {
    Problem p(DType::kF32, 4, 50, values, Shape::kNormal);
    const bool probs = values == TokenValues::kProbs;
    for (int64_t i = 0; i < 50; ++i) p.input.set(50 + i, probs ? -1 : -INFINITY);
    p.input.set(2 * 50 + 7, NAN);
    p.input.set(3 * 50 + 9, INFINITY);
    p.args.filter = {.top_k = 5};
    for (CpuLevel level : levels()) {
      token_filter(p.args, at(level));
      const RowStatus expected[] = {RowStatus::kOk, RowStatus::kEmpty, RowStatus::kNan, RowStatus::kInfinite};
      for (int64_t row = 0; row < 4; ++row) EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(expected[row]));
      EXPECT_TRUE(row_within(p.args, 0));
      for (int64_t i = 0; i < 50; ++i) {
        EXPECT_EQ(reference::element(p.out, 50 + i), probs ? 0 : -INFINITY);
        EXPECT_TRUE(std::isnan(reference::element(p.out, 100 + i)));
        EXPECT_EQ(reference::element(p.out, 150 + i), i == 9 ? (probs ? 1 : INFINITY) : probs ? 0 : -INFINITY);
      }
    }
  }
}

TEST(TokenFilter, ReferenceCatchesSeededDefects) {
  Problem p(DType::kF32, 1, 500, TokenValues::kProbs, Shape::kNormal);
  p.args.filter = {.top_k = 50};
  token_filter(p.args);
  for (const TokenFilter& wrong : {TokenFilter{.top_k = 51}, TokenFilter{.top_k = 49}, TokenFilter{.top_p = 0.5f}}) {
    TokenFilterArgs judged = p.args;
    judged.filter = wrong;
    EXPECT_FALSE(row_within(judged, 0));
  }
  for (int64_t i = 0; i < 500; ++i) p.out.set(i, reference::element(p.out, i) * (1 + 2e-5));
  EXPECT_FALSE(row_within(p.args, 0)) << "sum off by 2e-5";
}

TEST(TokenFilterCheck, RefusesEveryBrokenRule) {
  Problem p(DType::kF32, 4, 64, TokenValues::kProbs, Shape::kNormal);
  Tensor k(DType::kI64, {4}), numbers(DType::kF32, {4});
  expect_every_break_refused(kTokenFilterSchema, {p.args.input, p.args.out, p.args.status, k, numbers, numbers},
                             [&](const std::vector<TensorView>& t) {
                               TokenFilterArgs a = p.args;
                               a.input = t[0], a.out = t[1], a.status = t[2];
                               a.filter.top_k_arr = t[3], a.filter.top_p_arr = t[4], a.filter.min_p_arr = t[5];
                               check(a);
                             });
  TokenFilterArgs a = p.args;
  a.out.dtype = DType::kF16;
  EXPECT_EQ(error_of([&] { token_filter(a); }), "token_filter: out dtype differs from input's");
}

}  // namespace
}  // namespace fulmen::testing
