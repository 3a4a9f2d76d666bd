// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/sample.h>
#include <fulmen/reference/sample.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/token_cases.h"

namespace fulmen::testing {
namespace {

struct Problem {
  Tensor input, out, status, valid;
  SampleArgs args;
  Problem(DType dtype, int64_t num_rows, int64_t vocab_size, TokenValues values, Shape shape, uint64_t seed = 1)
      : input(dtype, {num_rows, vocab_size}, 3),
        out(DType::kI32, {num_rows}),
        status(DType::kI32, {num_rows}),
        valid(DType::kBool, {num_rows}) {
    fill_tokens(input, values, shape, seed);
    args = {.input = input, .out = out, .valid = valid, .status = status, .random = {.seed = 42}, .values = values};
  }
  std::vector<int32_t> tokens(CpuLevel level = CpuLevel::kAmxBf16) {
    out.poison(0xff);
    sample(args, at(level));
    EXPECT_TRUE(out.guards_intact() && status.guards_intact() && valid.guards_intact());
    return {out.data<int32_t>(), out.data<int32_t>() + out.view().num_elements()};
  }
};

void expect_acceptable(Problem& p, const std::vector<int32_t>& tokens, const std::string& what) {
  for (size_t row = 0; row < tokens.size(); ++row)
    EXPECT_TRUE(reference::acceptable(p.args, int64_t(row), tokens[row]))
        << what << " row " << row << " token " << tokens[row];
}

TEST(Sample, DrawsTheTokenOfTheReferenceAndTheSameOneAtEveryLevel) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (TokenValues values : kBoth)
      for (Shape shape : kShapes)
        for (int64_t vocab_size : {1, 2, 17, 130, 900}) {
          if (dtype != DType::kF32 && vocab_size != 130) continue;  // conversion is all that differs
          Problem p(dtype, 6, vocab_size, values, shape, uint64_t(vocab_size));
          for (const TokenFilter& f : filters_to_sample(vocab_size)) {
            p.args.filter = f;
            p.args.random.offset += 1;
            const std::vector<int32_t> tokens = p.tokens(CpuLevel::kScalar);
            expect_acceptable(p, tokens,
                              name_of_filter(f) + " vocab " + std::to_string(vocab_size) + " shape " +
                                  std::to_string(int(shape)) + " " + name_of(dtype));
            for (CpuLevel level : levels()) EXPECT_EQ(p.tokens(level), tokens) << name_of_filter(f);
          }
        }
}

TEST(Sample, LargeVocabularies) {
  for (TokenValues values : kBoth)
    for (Shape shape : {Shape::kFlat, Shape::kTied, Shape::kNormal, Shape::kPeaked}) {
      Problem p(DType::kF32, 2, 50257, values, shape, 5);
      if (values == TokenValues::kLogits) p.args.temperature = 0.7f;
      for (const TokenFilter& f :
           {TokenFilter{}, TokenFilter{.top_k = 50}, TokenFilter{.top_k = 5000}, TokenFilter{.top_p = 0.9f},
            TokenFilter{.top_k = 50, .top_p = 0.9f}, TokenFilter{.top_p = 0.99f, .order = FilterOrder::kJoint}}) {
        p.args.filter = f;
        const std::vector<int32_t> tokens = p.tokens(CpuLevel::kScalar);
        expect_acceptable(p, tokens, name_of_filter(f));
        for (CpuLevel level : levels()) EXPECT_EQ(p.tokens(level), tokens) << name_of_filter(f);
      }
    }
}

// Every row of the batch is the same input row; counts must be as the exact distribution says.
double deviate(Problem& p, int64_t num_draws, int32_t mode) {
  Tensor indices(DType::kI64, {num_draws}), out(DType::kI64, {num_draws}), numbers(DType::kI64, {num_draws});
  indices.fill([](int64_t) { return 0; });
  numbers.fill([](int64_t i) { return double(i * 3 + 7); });
  SampleArgs a = p.args;
  a.indices = indices, a.out = out, a.status = {}, a.valid = {};
  if (mode == 1) a.random.seed_arr = numbers;
  Tensor one_seed(DType::kU64, {num_draws});
  one_seed.fill([](int64_t) { return 99; });
  if (mode == 2) a.random.seed_arr = one_seed, a.random.offset_arr = numbers;
  sample(a);
  const reference::RankedRow row = reference::sampled_row(a, 0);
  std::vector<int64_t> counts(size_t(a.input.shape[1]));
  for (int64_t i = 0; i < num_draws; ++i) ++counts[size_t(out.data<int64_t>()[i])];
  double least = INFINITY;  // over the prefixes that are right
  for (int64_t len = row.least; len <= row.most; ++len)
    least = std::min(least, chi_square_deviate(counts, reference::distribution(row, len)));
  return least;
}

TEST(Sample, FollowsTheExactDistribution) {
  double worst = 0, sum = 0;
  int32_t num = 0;
  for (TokenValues values : kBoth)
    for (Shape shape : kShapes)
      for (int64_t vocab_size : {7, 300}) {
        Problem p(DType::kF32, 1, vocab_size, values, shape, 11);
        if (values == TokenValues::kLogits) p.args.temperature = 1.3f;
        for (const TokenFilter& f :
             {TokenFilter{}, TokenFilter{.top_k = 5}, TokenFilter{.top_k = 100}, TokenFilter{.top_p = 0.8f},
              TokenFilter{.min_p = 0.1f}, TokenFilter{.top_k = 30, .top_p = 0.9f},
              TokenFilter{.top_k = 30, .top_p = 0.9f, .order = FilterOrder::kJoint},
              TokenFilter{.top_k = 30, .top_p = 0.95f, .min_p = 0.05f}}) {
          p.args.filter = f;
          p.args.random.seed = uint64_t(1000 + num);
          const double z = deviate(p, draws(20000), num % 3);
          EXPECT_LT(z, 3.72) << name_of_filter(f) << " shape " << int(shape) << " vocab " << vocab_size;
          worst = std::max(worst, z), sum += z, ++num;
        }
      }
  std::printf("%d distributions: worst deviate %.2f, mean %.2f\n", num, worst, sum / num);
}

TEST(Sample, ATokenDependsOnItsSeedAndOffsetNotOnItsSlot) {
  Problem p(DType::kF32, 37, 500, TokenValues::kLogits, Shape::kNormal);
  Tensor seeds(DType::kI64, {37}), offsets(DType::kI64, {37});
  seeds.fill([](int64_t i) { return double(i % 5 + 1); });
  offsets.fill([](int64_t i) { return double(i / 5); });
  p.args.random = {.seed_arr = seeds, .offset_arr = offsets};
  p.args.filter = {.top_k = 100, .top_p = 0.95f};
  const std::vector<int32_t> batch = p.tokens();
  for (int64_t slot : {0, 5, 36}) {
    Problem one(DType::kF32, 1, 500, TokenValues::kLogits, Shape::kNormal);
    Tensor seed(DType::kI64, {1}), offset(DType::kI64, {1}), index(DType::kI64, {1});
    seed.set(0, double(slot % 5 + 1)), offset.set(0, double(slot / 5)), index.set(0, double(slot));
    one.args.input = p.args.input, one.args.indices = index;
    one.args.random = {.seed_arr = seed, .offset_arr = offset};
    one.args.filter = p.args.filter;
    EXPECT_EQ(one.tokens()[0], batch[size_t(slot)]);
  }
}

TEST(Sample, OneSeedGivesEveryRowItsOwnNumbers) {
  Problem p(DType::kF32, 1, 1000, TokenValues::kProbs, Shape::kFlat);
  Tensor indices(DType::kI32, {64}), out(DType::kI32, {64}), seed(DType::kU64, {1}), seeds(DType::kU64, {64});
  indices.fill([](int64_t) { return 0; }), seed.set(0, 42), seeds.fill([](int64_t) { return 42; });
  p.args.indices = indices, p.args.out = out, p.args.status = {}, p.args.valid = {};
  sample(p.args);
  const Tensor by_number = out;
  p.args.random.seed_arr = seed;  // [1] means the same as a number
  sample(p.args);
  EXPECT_TRUE(out.same_bytes(by_number));
  std::vector<int32_t> tokens(out.data<int32_t>(), out.data<int32_t>() + 64);
  std::sort(tokens.begin(), tokens.end());
  EXPECT_GT(std::unique(tokens.begin(), tokens.end()) - tokens.begin(), 50);
  p.args.random.seed_arr = seeds;  // the same seed of their own: the same token
  sample(p.args);
  for (int64_t i = 1; i < 64; ++i) EXPECT_EQ(out.data<int32_t>()[i], out.data<int32_t>()[0]);
}

TEST(Sample, AnotherNumberOfThreadsDrawsTheSameTokens) {
  Problem p(DType::kBF16, 33, 3000, TokenValues::kLogits, Shape::kPeaked);
  p.args.filter = {.top_p = 0.9f};
  const std::vector<int32_t> tokens = p.tokens();
  static const Executor alone;
  p.out.poison(0xff);
  sample(p.args, {.executor = &alone});
  EXPECT_EQ(tokens, std::vector<int32_t>(p.out.data<int32_t>(), p.out.data<int32_t>() + 33));
}

struct BadRow {
  const char* what;
  TokenValues values;
  RowStatus status;
  int32_t token;            // -1: any in range
  std::vector<float> head;  // the row's first values; the last repeats
};

TEST(Sample, BadRowsHaveAStatusAndDoNotDisturbOthers) {
  const float nan = NAN, inf = INFINITY;
  const std::vector<BadRow> rows = {
      {"all NaN", TokenValues::kLogits, RowStatus::kNan, 0, {nan}},
      {"one NaN", TokenValues::kLogits, RowStatus::kNan, 0, {1, 2, nan, 0}},
      {"NaN and inf", TokenValues::kProbs, RowStatus::kNan, 0, {1, inf, nan, 0}},
      {"one NaN", TokenValues::kProbs, RowStatus::kNan, 0, {.1f, nan, .2f}},
      {"all -inf", TokenValues::kLogits, RowStatus::kEmpty, 0, {-inf}},
      {"one +inf", TokenValues::kLogits, RowStatus::kInfinite, 2, {1, 5, inf, 0}},
      {"all +inf", TokenValues::kLogits, RowStatus::kInfinite, -1, {inf}},
      {"all zero", TokenValues::kProbs, RowStatus::kEmpty, 0, {0}},
      {"minus zero", TokenValues::kProbs, RowStatus::kEmpty, 0, {-0.f}},
      {"all negative", TokenValues::kProbs, RowStatus::kEmpty, 0, {-1}},
      {"-inf", TokenValues::kProbs, RowStatus::kEmpty, 0, {-inf}},
      {"one positive", TokenValues::kProbs, RowStatus::kOk, 3, {-1, -inf, 0, 1e-30f, 0}},
      {"one subnormal", TokenValues::kProbs, RowStatus::kOk, 1, {0, 1e-45f, 0}},
      {"one +inf", TokenValues::kProbs, RowStatus::kInfinite, 1, {.5f, inf, .5f}},
      {"all huge", TokenValues::kProbs, RowStatus::kOk, -1, {3e38f}},
      {"one huge logit", TokenValues::kLogits, RowStatus::kOk, 1, {-3e38f, 3e38f, 0}},
  };
  for (const BadRow& bad : rows)
    for (const TokenFilter& f : filters_to_sample(200)) {
      Problem clean(DType::kF32, 5, 200, bad.values, Shape::kNormal);
      clean.args.filter = f;
      const std::vector<int32_t> before = clean.tokens();
      for (int64_t i = 0; i < 200; ++i)
        clean.input.set(2 * 200 + i, double(bad.head[std::min(size_t(i), bad.head.size() - 1)]));
      for (CpuLevel level : levels()) {
        const std::vector<int32_t> after = clean.tokens(level);
        for (size_t row : {0u, 1u, 3u, 4u}) EXPECT_EQ(after[row], before[row]);
        EXPECT_EQ(clean.status.data<int32_t>()[2], int32_t(bad.status)) << bad.what << " " << name_of_filter(f);
        EXPECT_EQ(clean.valid.data<uint8_t>()[2], bad.status == RowStatus::kOk || bad.status == RowStatus::kInfinite);
        EXPECT_TRUE(bad.token < 0 ? after[2] >= 0 && after[2] < 200 : after[2] == bad.token)
            << bad.what << " gave " << after[2];
      }
    }
}

TEST(Sample, BadParametersTakeTheLikeliestToken) {
  Problem p(DType::kF32, 6, 100, TokenValues::kLogits, Shape::kNormal);
  Tensor k(DType::kI32, {6}), top_p(DType::kF32, {6}), min_p(DType::kF32, {6}), temperature(DType::kF32, {6});
  k.fill([](int64_t i) { return i == 0 ? 0 : i == 1 ? -3 : 1000; });
  top_p.fill([](int64_t i) { return i == 2 ? double(NAN) : 1; });
  min_p.fill([](int64_t i) { return i == 3 ? 1.5 : 0; });
  temperature.fill([](int64_t i) { return i == 4 ? -1 : 1; });
  p.args.filter.top_k_arr = k, p.args.filter.top_p_arr = top_p, p.args.filter.min_p_arr = min_p;
  p.args.temperature_arr = temperature;
  const std::vector<int32_t> tokens = p.tokens();
  for (int64_t row = 0; row < 5; ++row) {
    const float* x = p.input.data<float>() + row * 103;
    EXPECT_EQ(tokens[size_t(row)], std::max_element(x, x + 100) - x);
    EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(RowStatus::kBadParameter));
  }
  EXPECT_EQ(p.status.data<int32_t>()[5], int32_t(RowStatus::kOk));
}

TEST(Sample, IndicesOutOfRangeReadNothing) {
  Problem p(DType::kF32, 2, 10, TokenValues::kProbs, Shape::kNormal);
  Tensor indices(DType::kI32, {4}), out(DType::kI32, {4}), status(DType::kI32, {4});
  indices.set(0, 1), indices.set(1, -1), indices.set(2, 2), indices.set(3, 1 << 30);
  p.args.indices = indices, p.args.out = out, p.args.status = status, p.args.valid = {};
  sample(p.args);
  EXPECT_EQ(status.data<int32_t>()[0], int32_t(RowStatus::kOk));
  for (int64_t i = 1; i < 4; ++i) {
    EXPECT_EQ(status.data<int32_t>()[i], int32_t(RowStatus::kBadParameter));
    EXPECT_EQ(out.data<int32_t>()[i], 0);
  }
}

TEST(Sample, TemperatureZeroTakesTheFirstLargestLogit) {
  Problem p(DType::kF16, 4, 300, TokenValues::kLogits, Shape::kTied);
  for (float temperature : {0.f, 1e-45f}) {
    p.args.temperature = temperature;
    const std::vector<int32_t> tokens = p.tokens();
    for (int64_t row = 0; row < 4; ++row) {
      int64_t best = 0;
      for (int64_t i = 1; i < 300; ++i)
        if (reference::element(p.input, row * 300 + i) > reference::element(p.input, row * 300 + best)) best = i;
      EXPECT_EQ(tokens[size_t(row)], best);
    }
  }
}

TEST(Sample, MemoryBetweenRowsIsNotRead) {
  for (DType dtype : {DType::kF32, DType::kBF16}) {
    Problem p(dtype, 5, 77, TokenValues::kLogits, Shape::kNormal),
        q(dtype, 5, 77, TokenValues::kLogits, Shape::kNormal);
    for (int64_t row = 0; row < 5; ++row)  // p's padding is NaN, q's is large
      for (int64_t i = 77; i < 80; ++i) {
        if (dtype == DType::kF32)
          q.input.data<float>()[row * 80 + i] = 1e30f;
        else
          q.input.data<bf16>()[row * 80 + i] = to_bf16(1e30f);
      }
    EXPECT_EQ(p.tokens(), q.tokens());
  }
}

TEST(Sample, ReferenceCatchesSeededDefects) {
  const auto num_wrong = [](Problem& judged, const std::vector<int32_t>& tokens) {
    int64_t wrong = 0;
    for (size_t row = 0; row < tokens.size(); ++row)
      wrong += !reference::acceptable(judged.args, int64_t(row), tokens[row]);
    return wrong;
  };
  Problem p(DType::kF32, 400, 100, TokenValues::kLogits, Shape::kNormal);
  p.args.filter = {.top_k = 20, .top_p = 0.9f};
  EXPECT_EQ(num_wrong(p, p.tokens()), 0);
  Problem q = p;
  q.args.input = q.input, q.args.out = q.out, q.args.status = q.status, q.args.valid = q.valid;
  q.args.filter.top_k = 21;
  EXPECT_GT(num_wrong(p, q.tokens()), 0) << "one token too many";
  q.args.filter = {.top_k = 20, .top_p = 0.88f};
  EXPECT_GT(num_wrong(p, q.tokens()), 0) << "another mass";
  q.args.filter = {.top_k = 20, .top_p = 0.9f, .order = FilterOrder::kJoint};
  EXPECT_GT(num_wrong(p, q.tokens()), 0) << "another order";
  q.args.filter = p.args.filter;
  q.args.temperature = 1.01f;
  EXPECT_GT(num_wrong(p, q.tokens()), 0) << "another temperature";
  q.args.temperature = 1;
  q.args.random.offset = 1;
  EXPECT_GT(num_wrong(p, q.tokens()), 0) << "another random number";
}

TEST(SampleCheck, NamesWhatIsWrong) {
  Problem p(DType::kF32, 4, 64, TokenValues::kProbs, Shape::kNormal);
  SampleArgs a = p.args;
  a.temperature = 0.5f;
  EXPECT_EQ(error_of([&] { sample(a); }), "sample: temperature is for logits, not for probabilities");
  a = p.args;
  Tensor seeds(DType::kI64, {3});
  a.random.seed_arr = seeds;
  EXPECT_EQ(error_of([&] { sample(a); }), "sample: seed_arr dim 0 is 3, expected batch_size 4 or 1");
  a = p.args;
  a.input.shape[0] = 3;
  EXPECT_EQ(error_of([&] { sample(a); }),
            "sample: out dim 0 (batch_size) is 4, expected num_rows 3 where no indices are given");
}

TEST(SampleCheck, RefusesEveryBrokenRule) {
  Problem p(DType::kF32, 4, 64, TokenValues::kLogits, Shape::kNormal);
  Tensor indices(DType::kI32, {4}), k(DType::kI32, {4}), seeds(DType::kI64, {4}), numbers(DType::kF32, {4});
  expect_every_break_refused(
      kSampleSchema,
      {p.args.input, indices, p.args.out, p.args.valid, p.args.status, k, numbers, numbers, seeds, seeds, numbers},
      [&](const std::vector<TensorView>& t) {
        SampleArgs a = p.args;
        a.input = t[0], a.indices = t[1], a.out = t[2], a.valid = t[3], a.status = t[4];
        a.filter.top_k_arr = t[5], a.filter.top_p_arr = t[6], a.filter.min_p_arr = t[7];
        a.random.seed_arr = t[8], a.random.offset_arr = t[9], a.temperature_arr = t[10];
        check(a);
      });
}

TEST(SampleCheck, ZeroRowsAreLegal) {
  Problem p(DType::kF32, 0, 64, TokenValues::kProbs, Shape::kNormal);
  EXPECT_NO_THROW(sample(p.args));
}

}  // namespace
}  // namespace fulmen::testing
