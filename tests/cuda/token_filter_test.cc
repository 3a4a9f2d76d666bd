// SPDX-License-Identifier: Apache-2.0
// token_filter, softmax and top_k on the device.
#include <fulmen/reference/softmax.h>
#include <fulmen/reference/token_filter.h>
#include <fulmen/reference/top_k.h>

#include "tests/support/gpu_case.h"
#include "tests/support/token_cases.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct FilterProblem {
  Tensor input, out, status;
  TokenFilterArgs args;
  FilterProblem(DType dtype, int64_t batch_size, int64_t vocab_size, TokenValues values, Shape shape,
                int64_t padding = 5)
      : input(dtype, {batch_size, vocab_size}, padding),
        out(dtype, {batch_size, vocab_size}, padding),
        status(DType::kI32, {batch_size}) {
    fill_tokens(input, values, shape, uint64_t(vocab_size));
    args = {.input = input, .out = out, .status = status, .values = values};
  }
  void run(bool in_place = false) {
    out.poison(0xff);
    GpuTensor dinput(input), dout(out), dstatus(status);
    TokenFilterArgs a = args;
    a.input = dinput, a.out = in_place ? TensorView(dinput) : TensorView(dout), a.status = dstatus;
    token_filter(a);
    if (in_place) {
      Tensor copy = input;
      input = dinput.fetch(), out = input, input = copy;
      args.input = input, args.out = out;
    } else {
      EXPECT_TRUE(dout.fetch().guards_intact());
    }
    dstatus.fetch();
  }
  // Whether the row is right for one of the prefixes that are.
  bool row_within(int64_t row) const {
    const reference::RankedRow r =
        reference::ranked_row(args.input, row, args.values, reference::parameters_of(args.filter, 1, row));
    TensorView v = args.out;
    v.data = v.as<char>() + row * v.strides[0] * size_of(v.dtype);
    v.shape[0] = 1;
    for (int64_t len = r.least; len <= r.most; ++len)
      if (worst_ratio(v, reference::filtered_row(r, len, args.values, args.out.dtype)) <= 1) return true;
    return false;
  }
};

class CudaTokenFilter : public OnGpu {};

TEST_F(CudaTokenFilter, KeepsThePrefixOfTheReference) {
  for (DType dtype : float_types())
    for (TokenValues values : {TokenValues::kProbs, TokenValues::kLogits})
      for (Shape shape : kShapes)
        for (int64_t vocab_size : {1, 33, 700, 3000}) {
          if (is_slow() && (vocab_size == 3000 ? shape != Shape::kTied || dtype != DType::kF32 : vocab_size == 700))
            continue;
          FilterProblem p(dtype, 2, vocab_size, values, shape);
          for (const TokenFilter& f : filters_to_apply(vocab_size)) {
            p.args.filter = f;
            p.run();
            for (int64_t row = 0; row < 2; ++row)
              EXPECT_TRUE(p.row_within(row))
                  << name_of(dtype) << " vocab " << vocab_size << " shape " << int(shape) << " top_k " << f.top_k
                  << " top_p " << f.top_p << " min_p " << f.min_p << " ties " << f.keep_ties << " row " << row;
          }
        }
}

TEST_F(CudaTokenFilter, ManyValuesAndLargeK) {
  for (Shape shape : {Shape::kFlat, Shape::kTied, Shape::kNormal, Shape::kPeaked})
    for (TokenValues values : {TokenValues::kProbs, TokenValues::kLogits})
      for (const TokenFilter& f : {TokenFilter{.top_k = 20000}, TokenFilter{.top_p = 0.95f}, TokenFilter{.top_k = 777},
                                   TokenFilter{.top_k = 9000, .top_p = 0.3f, .keep_ties = true}}) {
        FilterProblem p(DType::kF32, 2, is_slow() ? 20004 : 60000, values, shape, 0);
        p.args.filter = f;
        p.run();
        for (int64_t row = 0; row < 2; ++row)
          EXPECT_TRUE(p.row_within(row)) << int(shape) << " top_k " << f.top_k << " top_p " << f.top_p;
      }
}

TEST_F(CudaTokenFilter, TiesAreKeptByIndexUnlessAllAreAskedFor) {
  FilterProblem p(DType::kF32, 1, 8, TokenValues::kLogits, Shape::kFlat);
  const float x[] = {1, 3, 2, 2, -0.f, 2, 0, 2}, inf = INFINITY, kept[] = {-inf, 3, 2, 2, -inf, -inf, -inf, -inf};
  for (int64_t i = 0; i < 8; ++i) p.input.set(i, double(x[i]));
  p.args.filter = {.top_k = 3};
  p.run();
  for (int64_t i = 0; i < 8; ++i) EXPECT_EQ(p.out.data<float>()[i], kept[i]) << i;
  p.args.filter = {.top_k = 7};  // 0 and -0 are equal: the first is kept
  p.run();
  EXPECT_EQ(p.out.data<float>()[4], 0);
  EXPECT_EQ(p.out.data<float>()[6], -inf);
}

TEST_F(CudaTokenFilter, InPlaceGivesTheSame) {
  FilterProblem p(DType::kF32, 3, 1000, TokenValues::kProbs, Shape::kNormal), q = FilterProblem(p);
  q.args.input = q.input, q.args.out = q.out, q.args.status = q.status;
  p.args.filter = q.args.filter = {.top_p = 0.7f};
  p.run(), q.run(true);
  for (int64_t i = 0; i < 3000; ++i) EXPECT_EQ(reference::element(q.out, i), reference::element(p.out, i));
}

TEST_F(CudaTokenFilter, BadRows) {
  for (TokenValues values : {TokenValues::kProbs, TokenValues::kLogits}) {
    FilterProblem p(DType::kF32, 4, 50, values, Shape::kNormal);
    const bool probs = values == TokenValues::kProbs;
    for (int64_t i = 0; i < 50; ++i) p.input.set(50 + i, probs ? -1 : -INFINITY);
    p.input.set(2 * 50 + 7, NAN), p.input.set(3 * 50 + 9, INFINITY);
    p.args.filter = {.top_k = 5};
    p.run();
    const RowStatus expected[] = {RowStatus::kOk, RowStatus::kEmpty, RowStatus::kNan, RowStatus::kInfinite};
    for (int64_t row = 0; row < 4; ++row) EXPECT_EQ(p.status.data<int32_t>()[row], int32_t(expected[row]));
    EXPECT_TRUE(p.row_within(0));
    for (int64_t i = 0; i < 50; ++i) {
      EXPECT_EQ(reference::element(p.out, 50 + i), probs ? 0 : -INFINITY);
      EXPECT_TRUE(std::isnan(reference::element(p.out, 100 + i)));
      EXPECT_EQ(reference::element(p.out, 150 + i), i == 9 ? (probs ? 1 : INFINITY) : probs ? 0 : -INFINITY);
    }
  }
}

class CudaSoftmax : public OnGpu {};

TEST_F(CudaSoftmax, StaysWithinTheReferencesBound) {
  for (DType dtype : float_types())
    for (Shape shape : kShapes)
      for (int64_t vocab_size : {1, 5, 64, 1023, 20000, 131072}) {
        if (is_slow() && vocab_size > 2000 && (shape != Shape::kNormal || vocab_size > 20000)) continue;
        for (float temperature : {0.f, 0.05f, 0.7f, 1.f, 20.f}) {
          Tensor logits(dtype, {2, vocab_size}, vocab_size % 4), out(DType::kF32, {2, vocab_size}, vocab_size % 4);
          Tensor status(DType::kI32, {2});
          fill_tokens(logits, TokenValues::kLogits, shape, uint64_t(vocab_size));
          if (vocab_size == 64) logits.set(64 + 3, INFINITY), logits.set(64 + 5, INFINITY);
          if (vocab_size == 1023) logits.set(1023 + 3, NAN);
          SoftmaxArgs a{.logits = logits, .out = out, .status = status, .temperature = temperature};
          const reference::SoftmaxReference expected = reference::softmax(a);
          GpuTensor dlogits(logits), dout(out), dstatus(status);
          a.logits = dlogits, a.out = dout, a.status = dstatus;
          softmax(a);
          dout.fetch(), dstatus.fetch();
          for (int64_t row = 0; row < 2; ++row)
            EXPECT_EQ(status.data<int32_t>()[row], int32_t(expected.status[size_t(row)]));
          if (vocab_size == 1023) {
            for (int64_t i = 0; i < 1023; ++i) EXPECT_TRUE(std::isnan(reference::element(out, 1023 + i)));
          } else {
            EXPECT_TRUE(within(out, expected.out)) << name_of(dtype) << " vocab " << vocab_size << " temperature "
                                                   << temperature << " shape " << int(shape);
          }
          EXPECT_TRUE(out.guards_intact());
        }
      }
}

class CudaTopK : public OnGpu {};

struct TopKProblem {
  Tensor input, values, indices;
  TopKArgs args;
  TopKProblem(DType dtype, int64_t num_rows, int64_t row_len, int64_t k, Shape shape, DType ids = DType::kI64)
      : input(dtype, {num_rows, row_len}, 2), values(dtype, {num_rows, k}, 1), indices(ids, {num_rows, k}, 3) {
    fill_tokens(input, TokenValues::kLogits, shape, uint64_t(row_len + k));
    args = {.input = input, .values = values, .indices = indices};
  }
  // Where the outputs differ from the reference; empty: nowhere.
  std::string difference() {
    values.poison(0xff), indices.poison(0xff);
    GpuTensor dinput(input), dvalues(values), dindices(indices);
    TopKArgs a = args;
    a.input = dinput, a.values = dvalues, a.indices = dindices;
    top_k(a);
    dvalues.fetch(), dindices.fetch();
    if (const std::string difference = top_k_difference(args); !difference.empty()) return difference;
    return values.guards_intact() && indices.guards_intact() ? "" : "guard bytes were written";
  }
};

TEST_F(CudaTopK, EqualsASort) {
  for (DType dtype : float_types())
    for (Shape shape : kShapes)
      for (int64_t row_len : {1, 40, 999, 5000, 70000})
        for (int64_t k : {int64_t(1), int64_t(2), int64_t(64), row_len / 2, row_len}) {
          if (k > row_len || k == 0 || (dtype != DType::kF32 && row_len != 999)) continue;
          if (is_slow() && (row_len > 5000 || (row_len >= 999 && shape != Shape::kTied))) continue;
          TopKProblem p(dtype, 2, row_len, k, shape, k % 2 == 0 ? DType::kI32 : DType::kI64);
          for (bool sorted : {false, true})
            for (TieBreak tie_break : {TieBreak::kSmallIndex, TieBreak::kLargeIndex}) {
              p.args.sorted = sorted, p.args.tie_break = tie_break;
              EXPECT_EQ(p.difference(), "") << name_of(dtype) << " len " << row_len << " k " << k << " shape "
                                            << int(shape) << " sorted " << sorted << " tie " << int(tie_break);
            }
        }
}

TEST_F(CudaTopK, NanIsLargestInfinitiesAndSubnormalsAreOrdered) {
  TopKProblem p(DType::kF32, 2, 12, 12, Shape::kNormal);
  const float x[] = {0, NAN, -INFINITY, 1e-45f, -1e-45f, -0.f, INFINITY, 1, NAN, -1, 3e38f, -3e38f};
  for (int64_t i = 0; i < 12; ++i)
    p.input.set(i, double(x[i])), p.input.set(12 + i, std::isnan(x[i]) ? 5 : double(x[i]));
  for (TieBreak tie_break : {TieBreak::kSmallIndex, TieBreak::kLargeIndex}) {
    p.args.tie_break = tie_break;
    EXPECT_EQ(p.difference(), "");
  }
}

// Values over the whole range of floats, so that the search has to go through the exponents; all rows end in time.
TEST_F(CudaTopK, HardRows) {
  for (int64_t n : {4096, 40000})
    for (int32_t kind = 0; kind < 6; ++kind)
      for (int64_t k : {1, 100, 2048, 4000}) {
        if (is_slow() && n > 4096) continue;
        TopKProblem p(DType::kF32, 1, n, k, Shape::kNormal);
        std::mt19937_64 rng(7);
        p.input.fill([&](int64_t i) {
          switch (kind) {
            case 0: return std::ldexp(1.0, int(rng() % 250) - 126) * (rng() % 2 ? 1 : -1);  // every exponent
            case 1: return double(i % 2 == 0 ? -INFINITY : 1);                              // -inf floods
            case 2: return std::ldexp(double(rng() % 5000), -149);                          // subnormals
            case 3: return i % 3 == 0 ? 3e38 : i % 3 == 1 ? -3e38 : 0;
            case 4: return i % 5 == 0 ? double(NAN) : double(i % 7);
            default: return 1 + double(rng() % 3) * 0x1p-23;  // neighbours
          }
        });
        EXPECT_EQ(p.difference(), "") << kind << " k " << k << " n " << n;
      }
}

}  // namespace
}  // namespace fulmen::testing
