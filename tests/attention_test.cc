// SPDX-License-Identifier: Apache-2.0
// attention against the oracle: a pairwise covering set of options, at every CPU level, with poisoned memory.
#include <fulmen/attention/call.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/support/attention_problem.h"
#include "tests/support/pairwise.h"

namespace fulmen::testing {
namespace {

const std::vector<std::pair<int64_t, int64_t>> kDims = {{64, 64},   {128, 128}, {8, 8},    {40, 72},
                                                        {192, 128}, {256, 256}, {576, 512}};

// Parameters of the covering set.
// clang-format off
enum {
  kKv, kQ, kOut, kDim, kGroup, kHeads, kPage, kTable, kLayout, kWide, kOne, kLen, kCausal, kWindow, kCap, kAlibi, kMask,
  kSink, kRope, kScale, kBase, kSplit, kPadding, kNum
};
// clang-format on

std::vector<AttentionCase> cases() {
  const std::vector<DType> floats = {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2};
  std::vector<int32_t> counts(kNum, 2);
  counts[kKv] = 5, counts[kQ] = 4, counts[kOut] = 3, counts[kDim] = 7, counts[kGroup] = 5, counts[kHeads] = 3,
  counts[kPage] = 4;
  counts[kTable] = 4, counts[kLen] = int32_t(kLens.size()), counts[kWindow] = 3, counts[kSplit] = 4;
  std::vector<AttentionCase> all;
  for (const auto& row : pairwise(counts)) {
    const auto at = [&](int32_t i) { return size_t(row[size_t(i)]); };
    AttentionCase c;
    c.kv_dtype = floats[at(kKv)], c.q_dtype = floats[at(kQ)], c.out_dtype = floats[at(kOut)];
    c.d_qk = kDims[at(kDim)].first, c.d_vo = kDims[at(kDim)].second;
    c.group = std::vector<int64_t>{1, 2, 3, 7, 16}[at(kGroup)];
    c.num_kv_heads = int64_t(at(kHeads)) + 1;
    c.page_size = std::vector<int64_t>{1, 5, 16, 64}[at(kPage)];
    c.table = Table(at(kTable)), c.layout = KvLayout(at(kLayout)), c.wide_ids = at(kWide) == 1;
    c.one_tensor = at(kOne) == 1 && c.table != Table::kRagged && c.d_qk == c.d_vo;
    c.lens = kLens[at(kLen)], c.row_padding = at(kPadding) == 1 ? 24 : 0, c.idle_rows = at(kPadding) == 1 ? 2 : 0;
    c.alibi = at(kAlibi) == 1, c.mask = at(kMask) == 1, c.sinks = at(kSink) == 1;
    c.options.causal = at(kCausal) == 1;
    c.options.window_left = std::vector<int32_t>{-1, 0, 37}[at(kWindow)];
    c.options.logits_soft_cap = at(kCap) == 1 ? 3.f : 0.f;
    c.options.rope_theta = at(kRope) == 1 ? 1e4f : 0.f, c.options.rope_scale = at(kRope) == 1 ? 2.f : 1.f;
    if (at(kScale) == 1)
      c.options.sm_scale = 0.2f, c.options.q_scale = 0.5f, c.options.k_scale = 1.5f, c.options.v_scale = -0.7f;
    c.options.lse_base = LogBase(at(kBase));
    c.options.fixed_split_len = at(kSplit) == 1   ? 64
                                : at(kSplit) == 2 ? 5
                                                  : 0,
    c.options.disable_split = at(kSplit) == 3;
    c.seed = all.size() + 1;
    all.push_back(c);
  }
  return all;
}

TEST(Attention, PairwiseOptionsStayWithinTheBoundAtEveryLevel) {
  double worst_out = 0, worst_lse = 0;
  for (const AttentionCase& c : cases()) {
    SCOPED_TRACE(describe(c));
    AttentionProblem p(c);
    const reference::AttentionValues want = reference::attention(p.args);
    for (CpuLevel level : levels()) {
      p.out.poison(0xff), p.lse.poison(0xff);
      batch_attention(p.args, at(level));
      EXPECT_TRUE(within(p, want)) << runtime::name_of(level);
      const Ratios r = ratios(p, want);
      worst_out = std::max(worst_out, r.out), worst_lse = std::max(worst_lse, r.lse);
    }
  }
  std::printf("worst error / bound: out %.3f, lse %.3f over %zu cases\n", worst_out, worst_lse, cases().size());
}

// Memory that no request owns has no influence, whatever it holds.
TEST(Attention, PoisonChangesNoBit) {
  int32_t index = 0;
  for (AttentionCase c : cases()) {
    if (++index % 4 != 0) continue;
    SCOPED_TRACE(describe(c));
    AttentionProblem poisoned(c);
    c.poison = 0;
    AttentionProblem clean(c);
    for (CpuLevel level : levels()) {
      attention::BatchAttention batch(at(level));
      batch.plan(clean.args);
      std::vector<uint8_t> workspace(size_t(batch.workspace_bytes()), 0xff), zeroed(workspace.size(), 0);
      poisoned.args.workspace = view_of(workspace.data(), {int64_t(workspace.size())});
      clean.args.workspace = view_of(zeroed.data(), {int64_t(zeroed.size())});
      batch.run(poisoned.args);
      batch.run(clean.args);
      EXPECT_TRUE(poisoned.out.same_bytes(clean.out)) << runtime::name_of(level);
      EXPECT_TRUE(poisoned.lse.same_bytes(clean.lse)) << runtime::name_of(level);
    }
  }
}

TEST(Attention, ExactWhereTheArithmeticIs) {  // equal weights of 2^n keys with integer values: every sum is exact
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3})
    for (int64_t kv_len : {1, 2, 64, 512}) {
      AttentionProblem p({.kv_dtype = t, .d_qk = 16, .d_vo = 24, .lens = {{1, kv_len}, {9, kv_len}}});
      p.q.fill([](int64_t) { return 0; });
      Tensor first;
      for (int64_t i = 0; i < p.v.view().num_elements(); ++i) {
        const double x = reference::element(p.v, i);
        if (!std::isnan(x)) p.v.set(i, double(i * 7 % 5) - 2);
      }
      const reference::AttentionValues want = reference::attention(p.args);
      for (CpuLevel level : levels()) {
        batch_attention(p.args, at(level));
        for (int64_t i = 0; i < p.out.view().num_elements(); ++i)
          ASSERT_EQ(reference::element(p.out, i), want.out[size_t(i)].value) << runtime::name_of(level) << " at " << i;
      }
    }
}

TEST(Attention, NoVisibleKeyGivesZeroAndMinusInfinity) {
  AttentionProblem p({.lens = {{5, 2}, {2, 0}}, .options = {.causal = true}});
  for (CpuLevel level : levels()) {
    p.out.poison(0xff), p.lse.poison(0xff);
    batch_attention(p.args, at(level));
    for (int64_t row : {0, 1, 2, 5, 6})
      for (int64_t h = 0; h < 4; ++h) {
        EXPECT_EQ(p.lse.data<float>()[row * 4 + h], -INFINITY);
        for (int64_t d = 0; d < 64; ++d) EXPECT_EQ(p.out.data<float>()[(row * 4 + h) * 64 + d], 0.f);
      }
  }
}

TEST(Attention, LongContextHoldsTheBound) {
  for (const int64_t kv_len : {20000, 70001}) {
    AttentionProblem p(
        {.kv_dtype = DType::kBF16, .num_kv_heads = 1, .group = 1, .d_qk = 8, .d_vo = 8, .lens = {{1, kv_len}}});
    const reference::AttentionValues want = reference::attention(p.args);
    for (CpuLevel level : levels()) {
      batch_attention(p.args, at(level));
      EXPECT_TRUE(within(p, want)) << runtime::name_of(level);
    }
  }
}

TEST(Attention, LargeLogitsDoNotOverflow) {
  AttentionProblem p({.lens = {{4, 200}}, .options = {.sm_scale = 50}});
  const reference::AttentionValues want = reference::attention(p.args);
  for (CpuLevel level : levels()) {
    batch_attention(p.args, at(level));
    EXPECT_TRUE(within(p, want)) << runtime::name_of(level);
  }
}

TEST(Attention, EmptyBatchesAreLegal) {
  AttentionProblem none({.lens = {}});
  EXPECT_NO_THROW(batch_attention(none.args));
  AttentionProblem no_rows({.lens = {{0, 40}, {0, 0}}});
  EXPECT_NO_THROW(batch_attention(no_rows.args));
}

TEST(Attention, EntryPointsAgreeWithTheGeneralOne) {
  AttentionCase c{.lens = {{1, 40}, {1, 7}}};
  AttentionProblem paged(c), single({.table = Table::kRagged, .lens = {{5, 40}}});
  Tensor expected = (batch_attention(paged.args), paged.out);
  paged.out.poison(0xff);
  batch_prefill_paged(paged.args);
  EXPECT_TRUE(paged.out.same_bytes(expected));
  paged.out.poison(0xff);
  AttentionArgs decode = paged.args;
  decode.qo_indptr = TensorView{};
  batch_decode(decode);
  EXPECT_TRUE(paged.out.same_bytes(expected));

  expected = (batch_attention(single.args), single.out);
  single.out.poison(0xff);
  batch_prefill_ragged(single.args);
  EXPECT_TRUE(single.out.same_bytes(expected));
  single.out.poison(0xff);
  AttentionArgs one = single.args;
  one.qo_indptr = one.kv_indptr = TensorView{};
  single_prefill(one);
  EXPECT_TRUE(single.out.same_bytes(expected));

  AttentionProblem row({.table = Table::kRagged, .layout = KvLayout::kHND, .lens = {{1, 40}}});
  const reference::AttentionValues want = reference::attention(row.args);
  AttentionArgs d = row.args;
  d.qo_indptr = d.kv_indptr = TensorView{};
  for (TensorView* t : {&d.q, &d.out, &d.lse}) {
    for (int32_t i = 1; i < t->rank; ++i) t->shape[i - 1] = t->shape[i], t->strides[i - 1] = t->strides[i];
    --t->rank;
  }
  single_decode(d);
  EXPECT_TRUE(within(row, want));
}

TEST(AttentionOracle, CatchesSeededDefects) {
  AttentionProblem p({.num_kv_heads = 1, .group = 4, .lens = {{6, 200}}, .options = {.causal = true}});
  const reference::AttentionValues want = reference::attention(p.args);
  batch_attention(p.args);
  const Ratios clean = ratios(p, want);
  std::printf("error / bound: out %.4f, lse %.4f\n", clean.out, clean.lse);
  EXPECT_LT(clean.out, 0.25);
  EXPECT_LT(clean.lse, 0.25);
  const auto defect = [&](auto change) {
    AttentionArgs a = p.args;
    change(a);
    batch_attention(a);
    return ratios(p, want);
  };
  const Ratios scaled = defect([](AttentionArgs& a) { a.options.sm_scale = 0.125f * 1.0001f; });
  EXPECT_GT(scaled.out, 1);
  EXPECT_GT(scaled.lse, 1);
  const Ratios base = defect([](AttentionArgs& a) { a.options.lse_base = LogBase::k2; });
  EXPECT_LE(base.out, 1);
  EXPECT_GT(base.lse, 1);
  p.last_page_len.set(0, 7);  // kv_len 199: causal rows move by one, and the last key is dropped
  const Ratios dropped = defect([](AttentionArgs&) {});
  EXPECT_GT(dropped.out, 1);
  EXPECT_GT(dropped.lse, 1);
  p.last_page_len.set(0, 9);  // one key too many: poison
  const Ratios extra = defect([](AttentionArgs&) {});
  EXPECT_GT(extra.out, 1);
  EXPECT_GT(extra.lse, 1);
}

TEST(AttentionOracle, CatchesADroppedKeyWithoutCausal) {
  AttentionProblem p({.lens = {{1, 1000}}});
  const reference::AttentionValues want = reference::attention(p.args);
  p.last_page_len.set(0, 7);  // 999
  batch_attention(p.args);
  EXPECT_GT(ratios(p, want).out, 1);
  EXPECT_GT(ratios(p, want).lse, 1);
}

// One key that ALiBi moves ever further below the sink: where its weight is subnormal it may be lost, and only there.
TEST(AttentionOracle, MayLoseKeysFarBelowTheSinkAndNoOthers) {
  AttentionProblem p({.num_kv_heads = 1, .group = 1, .alibi = true, .sinks = true, .lens = {{260, 1}}});
  const reference::AttentionValues want = reference::attention(p.args);
  int64_t num_kept = 0, num_lost = 0;
  for (int64_t i = 0; i < 260 * 64; ++i) {
    const auto [value, bound] = want.out[size_t(i)];
    const double x = std::abs(reference::element(p.v, p.args.kv_indices.as<int32_t>()[0] * 16 * 64 + i % 64));
    if (x < 0.01 || value == 0) continue;
    const double weight = std::log2(std::abs(value) / x);
    const bool kept = weight > -124.9, lost = weight < -125.1;
    EXPECT_TRUE(!kept || bound < 1e-3 * std::abs(value)) << i;
    EXPECT_TRUE(!lost || std::abs(bound / std::abs(value) - 1) <= 1e-3 + 0x1p-149 / std::abs(value)) << i;
    num_kept += kept, num_lost += lost;
  }
  EXPECT_GT(num_kept, 5000);
  EXPECT_GT(num_lost, 500);
  batch_attention(p.args);
  EXPECT_TRUE(within(p, want));
}

}  // namespace
}  // namespace fulmen::testing
