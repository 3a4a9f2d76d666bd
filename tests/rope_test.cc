// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope.h>
#include <fulmen/reference/rope.h>

#include <numeric>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Case {
  DType dtype = DType::kF32;
  int64_t nnz = 6, num_qo_heads = 4, num_kv_heads = 2, head_dim = 64, rotary_dim = 0;
  bool interleave = false, by_indptr = false, llama31 = false;
  DType ids = DType::kI32;
  int64_t last_position = 1000, padding = 0;
};

std::string describe(const Case& c) {
  return std::string(name_of(c.dtype)) + " dim " + std::to_string(c.head_dim) + " rotary " +
         std::to_string(c.rotary_dim) + (c.interleave ? " interleaved" : "") + (c.by_indptr ? " indptr" : "") +
         (c.llama31 ? " llama31" : "");
}

struct Problem {
  Tensor q, k, q_out, k_out, pos_ids, indptr, offsets, cache;
  RopeArgs args;
  explicit Problem(const Case& c)
      : q(c.dtype, {c.nnz, c.num_qo_heads, c.head_dim}, c.padding),
        k(c.dtype, {c.nnz, c.num_kv_heads, c.head_dim}, 2 * c.padding),
        q_out(c.dtype, {c.nnz, c.num_qo_heads, c.head_dim}),
        k_out(c.dtype, {c.nnz, c.num_kv_heads, c.head_dim}, c.padding),
        pos_ids(c.ids, {c.nnz}),
        indptr(c.ids, {4}),
        offsets(c.ids, {3}) {
    q.fill_normal(1);
    k.fill_normal(2);
    pos_ids.fill([&](int64_t t) { return t == 0 ? 0 : double(c.last_position - (t * 37) % (c.last_position + 1)); });
    const int64_t bounds[] = {0, c.nnz / 3, c.nnz / 3, c.nnz};  // the second request is empty
    indptr.fill([&](int64_t b) { return double(bounds[b]); });
    offsets.fill([&](int64_t b) { return double(c.last_position - 2 * b); });
    args = {.q = q, .k = k, .q_out = q_out, .k_out = k_out, .rotary_dim = c.rotary_dim, .interleave = c.interleave};
    if (c.by_indptr)
      args.indptr = indptr, args.offsets = offsets;
    else
      args.pos_ids = pos_ids;
    if (c.llama31) args.rope_scale = 8, args.rope_theta = 5e5, args.old_context_len = 8192;
  }
  void use_cache(DType dtype, int64_t max_position, int64_t rotary_dim) {
    cache = Tensor(dtype, {max_position, rotary_dim}, 8);
    cache.fill([&](int64_t i) {
      const int64_t pair = i % rotary_dim % (rotary_dim / 2);
      const double angle = double(i / rotary_dim) * std::pow(1e4, -2.0 * double(pair) / double(rotary_dim));
      return i % rotary_dim < rotary_dim / 2 ? std::cos(angle) : std::sin(angle);
    });
    args.cos_sin_cache = cache;
  }
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16})
    for (int64_t head_dim : {2, 8, 30, 64, 80, 128, 576})
      for (bool interleave : {false, true}) {
        all.push_back({.dtype = t, .head_dim = head_dim, .interleave = interleave, .padding = head_dim % 3});
        all.push_back({.dtype = t,
                       .head_dim = head_dim,
                       .rotary_dim = head_dim / 4 * 2,
                       .interleave = interleave,
                       .by_indptr = true,
                       .llama31 = true,
                       .ids = DType::kI64,
                       .padding = 4});
      }
  all.push_back({.nnz = 300, .num_qo_heads = 1, .num_kv_heads = 1, .head_dim = 16});
  all.push_back({.nnz = 1, .num_qo_heads = 32, .num_kv_heads = 8, .head_dim = 128});
  return all;
}

TEST(Rope, StaysWithinTheReferencesBoundAtEveryLevel) {
  double worst = 0;
  for (const Case& c : cases())
    for (CpuLevel level : levels()) {
      Problem p(c);
      const reference::Rope expected = reference::rope(p.args);
      rope(p.args, at(level));
      EXPECT_TRUE(within(p.q_out, expected.q)) << runtime::name_of(level) << " " << describe(c);
      EXPECT_TRUE(within(p.k_out, expected.k)) << runtime::name_of(level) << " " << describe(c);
      worst = std::max({worst, worst_ratio(p.q_out, expected.q), worst_ratio(p.k_out, expected.k)});
    }
  RecordProperty("worst_ratio", std::to_string(worst));
}

// q = (1, 0) in every pair gives cos and sin themselves, against long double.
TEST(Rope, SinAndCosErrBelowOneMillionthUpToPositionTenMillion) {
  constexpr int64_t kTokens = 4096, kDim = 128;
  for (bool llama31 : {false, true}) {
    Problem p({.nnz = kTokens,
               .num_qo_heads = 1,
               .num_kv_heads = 1,
               .head_dim = kDim,
               .llama31 = llama31,
               .ids = DType::kI64});
    p.q.fill([](int64_t i) { return i % kDim < kDim / 2 ? 1 : 0; });
    p.pos_ids.fill([](int64_t t) { return 10'000'000.0 - double(t * 2441); });
    std::vector<long double> frequency;
    for (int64_t i = 0; i < kDim / 2; ++i) frequency.push_back(reference::rope_frequency(p.args, kDim, i));
    for (CpuLevel level : levels()) {
      rope(p.args, at(level));
      double worst = 0;
      for (int64_t t = 0; t < kTokens; ++t)
        for (int64_t i = 0; i < kDim / 2; ++i) {
          const long double angle = (long double)(10'000'000 - t * 2441) * frequency[size_t(i)];
          const float* row = p.q_out.data<float>() + t * kDim;
          worst = std::max(worst, std::abs(double(row[i]) - double(std::cos(angle))));
          worst = std::max(worst, std::abs(double(row[kDim / 2 + i]) - double(std::sin(angle))));
        }
      EXPECT_LE(worst, 1e-6) << runtime::name_of(level);
      RecordProperty(std::string("worst_error_") + runtime::name_of(level), std::to_string(worst * 1e9) + "e-9");
    }
  }
}

TEST(Rope, ReadsAnglesFromACacheOfAnyFloat) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (DType cache : {DType::kF32, DType::kF16, DType::kBF16})
      for (bool interleave : {false, true})
        for (bool by_indptr : {false, true})
          for (CpuLevel level : levels()) {
            Problem p({.dtype = dtype,
                       .head_dim = 80,
                       .interleave = interleave,
                       .by_indptr = by_indptr,
                       .last_position = 90});
            p.use_cache(cache, 100, 52);
            const reference::Rope expected = reference::rope(p.args);
            rope(p.args, at(level));
            EXPECT_TRUE(within(p.q_out, expected.q)) << runtime::name_of(level) << " " << name_of(cache);
            EXPECT_TRUE(within(p.k_out, expected.k)) << runtime::name_of(level) << " " << name_of(cache);
          }
}

TEST(Rope, InPlaceGivesTheSameBits) {
  for (bool interleave : {false, true})
    for (CpuLevel level : levels()) {
      Problem p({.dtype = DType::kBF16, .head_dim = 72, .rotary_dim = 50, .interleave = interleave});
      rope(p.args, at(level));
      p.args.q_out = p.q, p.args.k_out = p.k;
      rope(p.args, at(level));
      EXPECT_TRUE(p.q.same_bytes(p.q_out));
    }
}

TEST(Rope, KeysAreOptional) {
  Problem p({.nnz = 3});
  p.args.k = p.args.k_out = TensorView{};
  rope(p.args);
  EXPECT_TRUE(within(p.q_out, reference::rope(p.args).q));
}

TEST(Rope, TokensThatNoRequestOwnsAreLeftAlone) {
  Problem p({.nnz = 8, .by_indptr = true});
  p.indptr.set(0, 2), p.indptr.set(1, 3), p.indptr.set(2, 3), p.indptr.set(3, 6);
  p.q_out.fill([](int64_t i) { return double(i); });
  p.k_out.fill([](int64_t i) { return double(i); });
  const reference::Rope expected = reference::rope(p.args);  // knows what out holds
  rope(p.args);
  EXPECT_TRUE(within(p.q_out, expected.q));
  EXPECT_TRUE(within(p.k_out, expected.k));
}

TEST(Rope, ZeroTokensAreLegal) {
  EXPECT_NO_THROW(rope(Problem({.nnz = 0}).args));
  EXPECT_NO_THROW(rope(Problem({.nnz = 0, .by_indptr = true}).args));
}

TEST(Rope, ReferenceCatchesSeededDefects) {
  Problem p({.nnz = 4});
  const reference::Rope expected = reference::rope(p.args);
  p.args.interleave = true;
  rope(p.args);
  EXPECT_FALSE(within(p.q_out, expected.q));
  p.args.interleave = false;
  p.args.rope_theta = 10001;
  rope(p.args);
  EXPECT_FALSE(within(p.q_out, expected.q));
  p.args.rope_theta = 1e4;
  p.pos_ids.set(3, reference::element(p.pos_ids, 3) + 1);  // one position too far
  rope(p.args);
  EXPECT_FALSE(within(p.q_out, expected.q));
}

TEST(RopeCheck, NamesWhatIsWrong) {
  Problem p({.nnz = 6, .by_indptr = true, .last_position = 90});
  RopeArgs a = p.args;
  a.pos_ids = p.pos_ids;
  EXPECT_EQ(error_of([&] { rope(a); }), "rope: pos_ids is given besides indptr");
  a = p.args;
  a.k_out = TensorView{};
  EXPECT_EQ(error_of([&] { rope(a); }), "rope: k_out is missing, expected k and k_out or neither");
  a = p.args;
  a.rotary_dim = 66;
  EXPECT_EQ(error_of([&] { rope(a); }), "rope: rotary_dim is 66, expected an even number up to head_dim 64 and 1024");
  p.indptr.set(1, 5), p.indptr.set(2, 3);
  EXPECT_EQ(error_of([&] { rope(p.args); }), "rope: indptr[2] is 3, expected 5 to 6");
  Problem c({.nnz = 6, .last_position = 90});
  c.use_cache(DType::kF32, 90, 64);
  c.pos_ids.set(2, 90);
  EXPECT_EQ(error_of([&] { rope(c.args); }), "rope: pos_ids[2] is 90, expected 0 to 89, the rows of cos_sin_cache");
  Problem r({.nnz = 6, .by_indptr = true, .last_position = 88});
  r.use_cache(DType::kF32, 91, 64);
  r.offsets.set(0, 95);
  EXPECT_EQ(error_of([&] { rope(r.args); }),
            "rope: offsets[0] is 95, expected positions of 2 tokens in 0 to 90, the rows of cos_sin_cache");
}

TEST(RopeCheck, RefusesEveryBrokenRule) {
  for (bool by_indptr : {false, true}) {
    Problem p({.by_indptr = by_indptr, .last_position = 90});
    p.use_cache(DType::kF32, 100, 64);
    const RopeArgs& v = p.args;
    expect_every_break_refused(
        kRopeSchema, {v.q, v.k, v.q_out, v.k_out, v.pos_ids, v.indptr, v.offsets, v.cos_sin_cache},
        [&](const std::vector<TensorView>& t) {
          RopeArgs a = v;
          a.q = t[0], a.k = t[1], a.q_out = t[2], a.k_out = t[3], a.pos_ids = t[4], a.indptr = t[5], a.offsets = t[6];
          a.cos_sin_cache = t[7];
          check(a);
        });
  }
}

}  // namespace
}  // namespace fulmen::testing
