// SPDX-License-Identifier: Apache-2.0
// sample on the device: tokens against the reference's intervals, distributions, bad rows, slots, graph-like replays.
#include <fulmen/reference/sample.h>

#include <ctime>
#include <fstream>

#include "tests/support/gpu_case.h"
#include "tests/support/token_cases.h"

namespace fulmen::testing {
namespace {

struct Problem {
  Tensor input, out, status, valid;
  SampleArgs args;
  Problem(DType dtype, int64_t num_rows, int64_t vocab_size, TokenValues values, Shape shape, uint64_t seed = 1,
          int64_t padding = 3)
      : input(dtype, {num_rows, vocab_size}, padding),
        out(DType::kI32, {num_rows}),
        status(DType::kI32, {num_rows}),
        valid(DType::kBool, {num_rows}) {
    fill_tokens(input, values, shape, seed);
    args = {.input = input, .out = out, .valid = valid, .status = status, .random = {.seed = 42}, .values = values};
  }
  std::vector<int32_t> tokens() {
    out.poison(0xff), status.poison(0xff), valid.poison(0xff);
    GpuTensor dinput(input), dout(out), dstatus(status), dvalid(valid);
    SampleArgs a = args;
    a.input = dinput, a.out = dout, a.status = dstatus, a.valid = dvalid;
    sample(a);
    dout.fetch(), dstatus.fetch(), dvalid.fetch();
    EXPECT_TRUE(out.guards_intact() && status.guards_intact() && valid.guards_intact());
    return {out.data<int32_t>(), out.data<int32_t>() + out.view().num_elements()};
  }
};

void expect_acceptable(Problem& p, const std::string& what) {
  const std::vector<int32_t> tokens = p.tokens();
  for (size_t row = 0; row < tokens.size(); ++row)
    EXPECT_TRUE(reference::acceptable(p.args, int64_t(row), tokens[row]))
        << what << " row " << row << " token " << tokens[row] << " status " << p.status.data<int32_t>()[row];
}

class CudaSample : public OnGpu {};

TEST_F(CudaSample, DrawsTheTokenOfTheReference) {
  for (DType dtype : float_types())
    for (TokenValues values : kBoth)
      for (Shape shape : kShapes)
        for (int64_t vocab_size : {1, 2, 17, 130, 900, 2500}) {
          if (dtype != DType::kF32 && vocab_size != 130) continue;  // conversion is all that differs
          if (is_slow() && vocab_size >= 900 && shape != Shape::kTied && shape != Shape::kNormal) continue;
          Problem p(dtype, vocab_size == 2500 ? 1 : 4, vocab_size, values, shape, uint64_t(vocab_size),
                    vocab_size % 3 + (vocab_size == 900 ? 0 : 1));
          for (const TokenFilter& f : filters_to_sample(vocab_size)) {
            p.args.filter = f;
            p.args.random.offset += 1;
            expect_acceptable(p, name_of_filter(f) + " vocab " + std::to_string(vocab_size) + " shape " +
                                     std::to_string(int(shape)) + " " + name_of(dtype));
          }
        }
}

TEST_F(CudaSample, LargeVocabularies) {
  for (TokenValues values : kBoth)
    for (int64_t vocab_size : {20001, 50260, 131072}) {
      if (is_slow() && vocab_size != 20001) continue;
      for (Shape shape : {Shape::kFlat, Shape::kTied, Shape::kNormal, Shape::kPeaked}) {
        Problem p(DType::kF32, 2, vocab_size, values, shape, 5, 0);
        if (values == TokenValues::kLogits) p.args.temperature = 0.7f;
        for (const TokenFilter& f :
             {TokenFilter{}, TokenFilter{.top_k = 50}, TokenFilter{.top_k = 5000}, TokenFilter{.top_p = 0.9f},
              TokenFilter{.top_k = 50, .top_p = 0.9f}, TokenFilter{.top_p = 0.99f, .order = FilterOrder::kJoint},
              TokenFilter{.top_k = 1000, .top_p = 0.9f, .order = FilterOrder::kJoint},
              TokenFilter{.top_k = 9000, .top_p = 0.9f}, TokenFilter{.min_p = 0.1f}}) {
          p.args.filter = f;
          expect_acceptable(
              p, name_of_filter(f) + " shape " + std::to_string(int(shape)) + " vocab " + std::to_string(vocab_size));
        }
      }
    }
}

TEST_F(CudaSample, ManyRowsHaveACtaEach) {
  for (TokenValues values : kBoth)
    for (Shape shape : kShapes) {
      if (is_slow() && shape != Shape::kNormal && shape != Shape::kFlat) continue;
      Problem p(DType::kF32, is_slow() ? 2 : 64, 72000, values, shape, 3, 0);
      for (const TokenFilter& f : {TokenFilter{}, TokenFilter{.top_k = 50, .top_p = 0.9f}, TokenFilter{.top_k = 300},
                                   TokenFilter{.top_k = 2, .keep_ties = true}, TokenFilter{.top_p = 0.6f}}) {
        p.args.filter = f;
        const std::vector<int32_t> tokens = p.tokens();
        for (size_t row = 0; row < tokens.size(); row += 31)  // the reference sorts each
          EXPECT_TRUE(reference::acceptable(p.args, int64_t(row), tokens[row]))
              << name_of_filter(f) << " shape " << int(shape) << " row " << row << " token " << tokens[row];
      }
    }
}

TEST_F(CudaSample, RowsBeyondSharedMemoryAreReadAgain) {
  if (emulated()) GTEST_SKIP() << "too long for the emulator";
  Problem p(DType::kF32, 1, 600001, TokenValues::kLogits, Shape::kNormal, 5, 0);
  for (const TokenFilter& f : {TokenFilter{}, TokenFilter{.top_k = 50, .top_p = 0.9f}, TokenFilter{.top_p = 0.9f}}) {
    p.args.filter = f;
    expect_acceptable(p, name_of_filter(f));
  }
}

// Every row of the batch is the same input row; counts must be as the exact distribution says.
double deviate(Problem& p, int64_t num_draws, int32_t mode) {
  Tensor indices(DType::kI64, {num_draws}), out(DType::kI64, {num_draws}), numbers(DType::kI64, {num_draws});
  indices.fill([](int64_t) { return 0; });
  numbers.fill([](int64_t i) { return double(i * 3 + 7); });
  Tensor one_seed(DType::kU64, {num_draws});
  one_seed.fill([](int64_t) { return 99; });
  GpuTensor dinput(p.input), dindices(indices), dout(out), dnumbers(numbers), dseed(one_seed);
  SampleArgs a = p.args;
  a.input = dinput, a.indices = dindices, a.out = dout, a.status = {}, a.valid = {};
  if (mode == 1) a.random.seed_arr = dnumbers;
  if (mode == 2) a.random.seed_arr = dseed, a.random.offset_arr = dnumbers;
  sample(a);
  dout.fetch();
  a = p.args, a.indices = indices;
  const reference::RankedRow row = reference::sampled_row(a, 0);
  std::vector<int64_t> counts(size_t(a.input.shape[1]));
  for (int64_t i = 0; i < num_draws; ++i) {
    const int64_t token = out.data<int64_t>()[i];
    if (token < 0 || token >= int64_t(counts.size())) return INFINITY;
    ++counts[size_t(token)];
  }
  double least = INFINITY;  // over the prefixes that are right
  for (int64_t len = row.least; len <= row.most; ++len)
    least = std::min(least, chi_square_deviate(counts, reference::distribution(row, len)));
  return least;
}

// What was drawn, as benchmarks/results has it; for FULMEN_SAMPLING_JSON=FILE.
class DrawLog {
 public:
  void add(const std::string& id, int64_t num_draws, double deviate) {
    rows_ += (rows_.empty() ? "" : ",\n") + ("  {\"id\": \"" + id + "\", \"draws\": " + std::to_string(num_draws)) +
             ", \"deviate\": " + std::to_string(deviate) + "}";
  }
  void write() const {
    const char *path = std::getenv("FULMEN_SAMPLING_JSON"), *commit = std::getenv("FULMEN_COMMIT");
    if (path == nullptr) return;
    std::time_t now = std::time(nullptr);
    char date[32] = "";
    std::strftime(date, sizeof date, "%Y-%m-%d", std::gmtime(&now));
    std::ofstream(path) << "{\"device\": \"" << cuda::device(0).name << "\", \"commit\": \""
                        << (commit == nullptr ? "unknown" : commit) << "\", \"date\": \"" << date
                        << "\", \"suite\": \"sampling_distributions\",\n \"rows\": [\n"
                        << rows_ << "\n]}\n";
  }

 private:
  std::string rows_;
};

// 240 distributions; FULMEN_SAMPLING_DRAWS=4 and more makes 10^7 draws of them.
TEST_F(CudaSample, FollowsTheExactDistribution) {
  double worst = 0, sum = 0;
  int64_t num = 0, total = 0;
  const int64_t each = emulated() ? 300 : draws(20000);
  int64_t config = 0;
  DrawLog log;
  for (TokenValues values : kBoth)
    for (Shape shape : kShapes)
      for (int64_t vocab_size : {7, 300, 3000}) {
        if (emulated() && vocab_size == 3000) continue;
        Problem p(DType::kF32, 1, vocab_size, values, shape, 11);
        if (values == TokenValues::kLogits) p.args.temperature = 1.3f;
        for (const TokenFilter& f :
             {TokenFilter{}, TokenFilter{.top_k = 5}, TokenFilter{.top_k = 100}, TokenFilter{.top_p = 0.8f},
              TokenFilter{.min_p = 0.1f}, TokenFilter{.top_k = 30, .top_p = 0.9f},
              TokenFilter{.top_k = 30, .top_p = 0.9f, .order = FilterOrder::kJoint},
              TokenFilter{.top_k = 30, .top_p = 0.95f, .min_p = 0.05f}}) {
          if (emulated() && config++ % 11 != 0) continue;  // of every value, shape, size and filter some
          p.args.filter = f;
          p.args.random.seed = uint64_t(1000 + num);
          const double z = deviate(p, each, int32_t(num % 3));
          EXPECT_LT(z, 3.72) << name_of_filter(f) << " shape " << int(shape) << " vocab " << vocab_size;
          worst = std::max(worst, z), sum += z, ++num, total += each;
          log.add((values == TokenValues::kLogits ? "logits " : "probs ") + std::to_string(vocab_size) + " shape " +
                      std::to_string(int(shape)) + " " + name_of_filter(f),
                  each, z);
        }
      }
  if (!emulated() && lists_keys() == nullptr) log.write();
  std::printf("%lld distributions, %lld draws: worst deviate %.2f, mean %.2f\n", static_cast<long long>(num),
              static_cast<long long>(total), worst, sum / double(num));
}

TEST_F(CudaSample, ATokenDependsOnItsSeedAndOffsetNotOnItsSlot) {
  for (int64_t vocab_size : {500, 24000}) {
    const int64_t num = is_slow() ? 4 : 64;  // a CTA per row; one row alone has a cluster
    for (const TokenFilter& f :
         {TokenFilter{.top_k = 100, .top_p = 0.95f}, TokenFilter{}, TokenFilter{.top_p = 0.9f}}) {
      Problem p(DType::kF32, num, vocab_size, TokenValues::kLogits, Shape::kNormal, 1, 0);
      Tensor seeds(DType::kI64, {num}), offsets(DType::kI64, {num});
      seeds.fill([](int64_t i) { return double(i % 5 + 1); });
      offsets.fill([](int64_t i) { return double(i / 5); });
      GpuTensor dseeds(seeds), doffsets(offsets);
      p.args.random = {.seed_arr = dseeds, .offset_arr = doffsets};
      p.args.filter = f;
      const std::vector<int32_t> batch = p.tokens();
      for (int64_t slot : {int64_t(0), num / 3, num - 1}) {
        Tensor seed(DType::kI64, {1}), offset(DType::kI64, {1}), index(DType::kI64, {1}), out(DType::kI32, {1});
        seed.set(0, double(slot % 5 + 1)), offset.set(0, double(slot / 5)), index.set(0, double(slot));
        GpuTensor dseed(seed), doffset(offset), dindex(index), dout(out), dinput(p.input);
        SampleArgs one{.input = dinput, .indices = dindex, .out = dout, .filter = f, .values = TokenValues::kLogits};
        one.random = {.seed_arr = dseed, .offset_arr = doffset};
        sample(one);
        EXPECT_EQ(dout.fetch().data<int32_t>()[0], batch[size_t(slot)]);
      }
    }
  }
}

struct BadRow {
  const char* what;
  TokenValues values;
  RowStatus status;
  int32_t token;            // -1: any in range
  std::vector<float> head;  // the row's first values; the last repeats
};

std::vector<BadRow> bad_rows() {
  const float nan = NAN, inf = INFINITY;
  return {
      {"all NaN", TokenValues::kLogits, RowStatus::kNan, 0, {nan}},
      {"one NaN", TokenValues::kLogits, RowStatus::kNan, 0, {1, 2, nan, 0}},
      {"NaN and inf", TokenValues::kProbs, RowStatus::kNan, 0, {1, inf, nan, 0}},
      {"one NaN", TokenValues::kProbs, RowStatus::kNan, 0, {.1f, nan, .2f}},
      {"all -inf", TokenValues::kLogits, RowStatus::kEmpty, 0, {-inf}},
      {"one +inf", TokenValues::kLogits, RowStatus::kInfinite, 2, {1, 5, inf, 0}},
      {"all +inf", TokenValues::kLogits, RowStatus::kInfinite, -1, {inf}},
      {"all equal", TokenValues::kLogits, RowStatus::kOk, -1, {2.5f}},
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
}

void expect_bad_row(const BadRow& bad, const TokenFilter& f, int64_t n) {
  Problem p(DType::kF32, 5, n, bad.values, Shape::kNormal);
  p.args.filter = f;
  const std::vector<int32_t> before = p.tokens();
  for (int64_t i = 0; i < n; ++i) p.input.set(2 * n + i, double(bad.head[std::min(size_t(i), bad.head.size() - 1)]));
  const std::vector<int32_t> after = p.tokens();
  for (size_t row : {0u, 1u, 3u, 4u}) EXPECT_EQ(after[row], before[row]);
  EXPECT_EQ(p.status.data<int32_t>()[2], int32_t(bad.status)) << bad.what << " " << name_of_filter(f);
  EXPECT_EQ(p.valid.data<uint8_t>()[2], bad.status == RowStatus::kOk || bad.status == RowStatus::kInfinite);
  EXPECT_TRUE(bad.token < 0 ? after[2] >= 0 && after[2] < n : after[2] == bad.token)
      << bad.what << " gave " << after[2] << " " << name_of_filter(f) << " of " << n;
}

TEST_F(CudaSample, BadRowsHaveAStatusAndDoNotDisturbOthers) {
  for (const BadRow& bad : bad_rows()) {
    for (const TokenFilter& f : filters_to_sample(200)) expect_bad_row(bad, f, 200);
    for (const TokenFilter& f : {TokenFilter{}, TokenFilter{.top_k = 3}, TokenFilter{.top_k = 30, .top_p = 0.9f},
                                 TokenFilter{.top_k = 4000, .top_p = 0.9f}, TokenFilter{.top_p = 0.5f}})
      if (!emulated()) expect_bad_row(bad, f, is_slow() ? 20000 : 70000);
  }
}

TEST_F(CudaSample, BadParametersTakeTheLikeliestToken) {
  Problem p(DType::kF32, 6, 100, TokenValues::kLogits, Shape::kNormal);
  Tensor k(DType::kI32, {6}), top_p(DType::kF32, {6}), min_p(DType::kF32, {6}), temperature(DType::kF32, {6});
  k.fill([](int64_t i) { return i == 0 ? 0 : i == 1 ? -3 : 1000; });
  top_p.fill([](int64_t i) { return i == 2 ? double(NAN) : 1; });
  min_p.fill([](int64_t i) { return i == 3 ? 1.5 : 0; });
  temperature.fill([](int64_t i) { return i == 4 ? -1 : 1; });
  GpuTensor dk(k), dtop_p(top_p), dmin_p(min_p), dtemperature(temperature);
  p.args.filter.top_k_arr = dk, p.args.filter.top_p_arr = dtop_p, p.args.filter.min_p_arr = dmin_p;
  p.args.temperature_arr = dtemperature;
  const std::vector<int32_t> tokens = p.tokens();
  for (int64_t row = 0; row < 5; ++row) {
    const float* x = p.input.data<float>() + row * 103;
    EXPECT_EQ(tokens[size_t(row)], std::max_element(x, x + 100) - x);
    EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(RowStatus::kBadParameter));
  }
  EXPECT_EQ(p.status.data<int32_t>()[5], int32_t(RowStatus::kOk));
}

TEST_F(CudaSample, IndicesOutOfRangeReadNothing) {
  Problem p(DType::kF32, 2, 10, TokenValues::kProbs, Shape::kNormal);
  Tensor indices(DType::kI32, {4}), out(DType::kI32, {4}), status(DType::kI32, {4});
  indices.set(0, 1), indices.set(1, -1), indices.set(2, 2), indices.set(3, 1 << 30);
  GpuTensor dinput(p.input), dindices(indices), dout(out), dstatus(status);
  sample({.input = dinput, .indices = dindices, .out = dout, .status = dstatus, .values = TokenValues::kProbs});
  dout.fetch(), dstatus.fetch();
  EXPECT_EQ(status.data<int32_t>()[0], int32_t(RowStatus::kOk));
  for (int64_t i = 1; i < 4; ++i) {
    EXPECT_EQ(status.data<int32_t>()[i], int32_t(RowStatus::kBadParameter));
    EXPECT_EQ(out.data<int32_t>()[i], 0);
  }
}

TEST_F(CudaSample, TemperatureZeroTakesTheFirstLargestLogit) {
  Problem p(DType::kBF16, 4, 300, TokenValues::kLogits, Shape::kTied);
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

TEST_F(CudaSample, MemoryBetweenRowsIsNotRead) {
  Problem p(DType::kF32, 5, 77, TokenValues::kLogits, Shape::kNormal),
      q(DType::kF32, 5, 77, TokenValues::kLogits, Shape::kNormal);
  for (int64_t row = 0; row < 5; ++row)  // p's padding is NaN, q's is large
    for (int64_t i = 77; i < 80; ++i) q.input.data<float>()[row * 80 + i] = 1e30f;
  EXPECT_EQ(p.tokens(), q.tokens());
}

}  // namespace
}  // namespace fulmen::testing
