// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/top_k.h>
#include <fulmen/reference/top_k.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/token_cases.h"

namespace fulmen::testing {
namespace {

struct Problem {
  Tensor input, values, indices;
  TopKArgs args;
  Problem(DType dtype, int64_t num_rows, int64_t row_len, int64_t k, Shape shape, DType ids = DType::kI64)
      : input(dtype, {num_rows, row_len}, 2), values(dtype, {num_rows, k}, 1), indices(ids, {num_rows, k}, 3) {
    fill_tokens(input, TokenValues::kLogits, shape, uint64_t(row_len + k));
    args = {.input = input, .values = values, .indices = indices};
  }
  // Where the outputs differ from the reference; empty: nowhere.
  std::string difference() const {
    if (const std::string difference = top_k_difference(args); !difference.empty()) return difference;
    return values.guards_intact() && indices.guards_intact() ? "" : "guard bytes were written";
  }
};

TEST(TopK, EqualsASortAtEveryLevel) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (Shape shape : kShapes)
      for (int64_t row_len : {1, 40, 999, 5000})
        for (int64_t k : {int64_t(1), int64_t(2), int64_t(64), row_len / 2, row_len}) {
          if (k > row_len || k == 0 || (dtype != DType::kF32 && row_len != 999)) continue;
          Problem p(dtype, 3, row_len, k, shape, k % 2 == 0 ? DType::kI32 : DType::kI64);
          for (bool sorted : {false, true})
            for (TieBreak tie_break : {TieBreak::kSmallIndex, TieBreak::kLargeIndex})
              for (CpuLevel level : levels()) {
                p.args.sorted = sorted, p.args.tie_break = tie_break;
                p.values.poison(0xff), p.indices.poison(0xff);
                top_k(p.args, at(level));
                EXPECT_EQ(p.difference(), "") << runtime::name_of(level) << " " << name_of(dtype) << " len " << row_len
                                              << " k " << k << " shape " << int(shape) << " sorted " << sorted;
              }
        }
}

TEST(TopK, NanIsLargestInfinitiesAndSubnormalsAreOrdered) {
  Problem p(DType::kF32, 2, 12, 12, Shape::kNormal);
  const float x[] = {0, NAN, -INFINITY, 1e-45f, -1e-45f, -0.f, INFINITY, 1, NAN, -1, 3e38f, -3e38f};
  for (int64_t i = 0; i < 12; ++i)
    p.input.set(i, double(x[i])), p.input.set(12 + i, std::isnan(x[i]) ? 5 : double(x[i]));
  for (TieBreak tie_break : {TieBreak::kSmallIndex, TieBreak::kLargeIndex}) {
    p.args.tie_break = tie_break;
    top_k(p.args);
    EXPECT_EQ(p.difference(), "");
  }
}

// Values over the whole range of floats, so that the search has to go through the exponents; all rows end in time.
TEST(TopK, HardRows) {
  const int64_t n = 4096;
  for (int32_t kind = 0; kind < 5; ++kind)
    for (int64_t k : {1, 100, 2048, 4000}) {
      Problem p(DType::kF32, 1, n, k, Shape::kNormal);
      std::mt19937_64 rng(7);
      p.input.fill([&](int64_t i) {
        switch (kind) {
          case 0: return std::ldexp(1.0, int(rng() % 250) - 126) * (rng() % 2 ? 1 : -1);  // every exponent
          case 1: return double(i % 2 == 0 ? -INFINITY : 1);                              // -inf floods
          case 2: return std::ldexp(double(rng() % 5000), -149);                          // subnormals
          case 3: return i % 3 == 0 ? 3e38 : i % 3 == 1 ? -3e38 : 0;
          default: return 1 + double(rng() % 3) * 0x1p-23;  // neighbours
        }
      });
      for (CpuLevel level : levels()) {
        top_k(p.args, at(level));
        EXPECT_EQ(p.difference(), "") << kind << " k " << k;
      }
    }
}

TEST(TopK, ReferenceCatchesSeededDefects) {
  Problem p(DType::kF32, 2, 300, 20, Shape::kTied);
  top_k(p.args);
  EXPECT_EQ(p.difference(), "");
  p.args.tie_break = TieBreak::kLargeIndex;
  EXPECT_NE(p.difference(), "") << "ties by the other end";
  p.args.tie_break = TieBreak::kSmallIndex;
  p.args.sorted = false;
  EXPECT_NE(p.difference(), "") << "order of the output";
}

TEST(TopKCheck, NamesWhatIsWrong) {
  Problem p(DType::kF32, 2, 30, 20, Shape::kNormal);
  TopKArgs a = p.args;
  a.input.shape[1] = 10;
  EXPECT_EQ(error_of([&] { top_k(a); }), "top_k: k is 20, expected at most row_len 10");
  expect_every_break_refused(
      kTopKSchema, {p.args.input, p.args.values, p.args.indices},
      [&](const std::vector<TensorView>& t) { check(TopKArgs{.input = t[0], .values = t[1], .indices = t[2]}); });
  Problem none(DType::kF32, 3, 30, 0, Shape::kNormal);
  EXPECT_NO_THROW(top_k(none.args));
}

}  // namespace
}  // namespace fulmen::testing
