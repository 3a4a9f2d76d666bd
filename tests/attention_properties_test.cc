// SPDX-License-Identifier: Apache-2.0
// Metamorphic properties of attention: what must not change the result, bit for bit or within the bound.
#include <fulmen/attention/call.h>
#include <fulmen/cpu/attention.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/support/attention_problem.h"

namespace fulmen::testing {
namespace {

const std::vector<std::pair<int64_t, int64_t>> kMixed = {{1, 1300}, {20, 90}, {1, 0}, {5, 700}, {0, 30}, {130, 130}};

bool same(const AttentionProblem& a, const AttentionProblem& b) {
  return a.out.same_bytes(b.out) && a.lse.same_bytes(b.lse);
}

TEST(AttentionProperties, WhereKeysLieChangesNoBit) {
  for (CpuLevel level : levels()) {
    AttentionProblem base({.kv_dtype = DType::kBF16, .lens = kMixed, .options = {.causal = true}});
    batch_attention(base.args, at(level));
    for (const int64_t page_size : {1, 7, 16, 100})
      for (const Table table : {Table::kRagged, Table::kCsr, Table::kCsrSeqLens, Table::kBlockTables}) {
        AttentionCase c = base.c;
        c.page_size = page_size, c.table = table, c.options = {.causal = true};
        c.layout = page_size % 2 ? KvLayout::kHND : KvLayout::kNHD;
        c.wide_ids = page_size == 7, c.one_tensor = page_size == 16 && table != Table::kRagged;
        AttentionProblem other(c);
        batch_attention(other.args, at(level));
        EXPECT_TRUE(same(base, other)) << describe(other.c) << " at " << runtime::name_of(level);
      }
  }
}

TEST(AttentionProperties, SplitsStayWithinTheBound) {
  AttentionProblem p({.lens = kMixed, .options = {.causal = true}});
  const reference::AttentionValues want = reference::attention(p.args);
  for (CpuLevel level : levels())
    for (const int32_t fixed : {0, 1, 17, 64, 256, 5000})
      for (const int32_t threads : {1, 3, 40}) {
        runtime::ThreadPool pool(threads);
        p.args.options.fixed_split_len = fixed;
        p.out.poison(0xff), p.lse.poison(0xff);
        batch_attention(p.args, {.executor = &pool.executor(), .max_cpu_level = level});
        EXPECT_TRUE(within(p, want)) << "fixed " << fixed << " threads " << threads;
      }
}

TEST(AttentionProperties, TheSameCallGivesTheSameBits) {
  AttentionProblem p({.lens = kMixed, .options = {.causal = true}}), q(p.c);
  for (int32_t i = 0; i < 5; ++i) {
    batch_attention(p.args, at(CpuLevel::kAmxBf16));
    batch_attention(q.args, at(CpuLevel::kAmxBf16));
    EXPECT_TRUE(same(p, q));
  }
}

// fixed_split_len: a request alone, in a batch, and on any number of threads gives the same bits.
TEST(AttentionProperties, FixedSplitsAreBatchInvariant) {
  for (CpuLevel level : levels())
    for (const int32_t fixed : {1, 64, 256}) {
      AttentionProblem batch(
          {.kv_dtype = DType::kF16, .lens = kMixed, .options = {.causal = true, .fixed_split_len = fixed}});
      batch_attention(batch.args, at(level));
      const Tensor out = batch.out, lse = batch.lse;
      for (const int32_t threads : {1, 2, 40}) {
        runtime::ThreadPool pool(threads);
        batch.out.poison(0xff);
        batch_attention(batch.args, {.executor = &pool.executor(), .max_cpu_level = level});
        EXPECT_TRUE(batch.out.same_bytes(out)) << threads << " threads";
        EXPECT_TRUE(batch.lse.same_bytes(lse)) << threads << " threads";
      }
      batch.out.poison(0xff), batch.lse.poison(0xff);
      for (size_t b = 0; b < kMixed.size(); ++b) {  // one by one, through shortened views
        AttentionArgs one = batch.args;
        one.qo_indptr = batch.qo_indptr, one.kv_indptr = batch.kv_indptr;
        for (TensorView* t : {&one.qo_indptr, &one.kv_indptr}) t->data = t->as<int32_t>() + b, t->shape[0] = 2;
        one.last_page_len.data = one.last_page_len.as<int32_t>() + b, one.last_page_len.shape[0] = 1;
        batch_attention(one, {.executor = nullptr, .max_cpu_level = level});
      }
      EXPECT_TRUE(batch.out.same_bytes(out)) << "one by one, split " << fixed;
      EXPECT_TRUE(batch.lse.same_bytes(lse)) << "one by one, split " << fixed;
    }
}

TEST(AttentionProperties, AppendingRowsIsTheEndOfALongerPrefill) {
  AttentionProblem whole({.lens = {{200, 200}}, .options = {.causal = true}});
  const reference::AttentionValues want = reference::attention(whole.args);
  for (CpuLevel level : levels()) {
    whole.out.poison(0xff), whole.lse.poison(0xff);
    int64_t done = 0;
    for (const int64_t n : {100, 60, 39, 1}) {  // chunked prefill, then a decode step
      AttentionArgs a = whole.args;
      Tensor qo(DType::kI32, {2}), pages(DType::kI32, {2}), last(DType::kI32, {1});
      qo.set(0, double(done)), qo.set(1, double(done + n)), done += n;
      pages.set(0, 0), pages.set(1, double((done + 15) / 16)), last.set(0, double((done - 1) % 16 + 1));
      a.qo_indptr = qo, a.kv_indptr = pages, a.last_page_len = last;
      batch_attention(a, at(level));
    }
    EXPECT_TRUE(within(whole, want)) << runtime::name_of(level);
  }
}

TEST(BatchAttention, PlansOnceAndRunsManyTimesInExactlyItsWorkspace) {
  AttentionProblem p({.lens = kMixed, .options = {.causal = true}}), q(p.c);
  attention::BatchAttention batch(at(CpuLevel::kAmxBf16));
  batch.plan(p.args);
  EXPECT_LE(batch.workspace_bytes(), batch.max_workspace_bytes());
  Tensor workspace(DType::kU8, {batch.workspace_bytes()});
  p.args.workspace = workspace;
  batch.run(p.args);
  EXPECT_TRUE(workspace.guards_intact());
  batch_attention(q.args, at(CpuLevel::kAmxBf16));
  EXPECT_TRUE(same(p, q));

  attention::BatchAttention loaded(at(CpuLevel::kAmxBf16));
  loaded.set_plan(attention::load(attention::save(batch.plan())), q.args);
  q.args.workspace = workspace;
  q.out.poison(0xff);
  loaded.run(q.args);
  EXPECT_TRUE(same(p, q));

  p.args.workspace.shape[0] -= 1;
  EXPECT_EQ(error_of([&] { batch.run(p.args); }).find("batch_attention: workspace has "), 0u);
  p.args.workspace = workspace;
  p.last_page_len.set(0, 3);
  EXPECT_EQ(error_of([&] { batch.run(p.args); }),
            "batch_attention: kv_len of request 0 is 1299, expected 1300, as planned");
  p.last_page_len.set(0, 4);
  p.args.options.window_left = 9;
  EXPECT_EQ(error_of([&] { batch.run(p.args); }), "batch_attention: window_left is 9, expected -1, as planned");
}

// Where a backend has no such launches, or none that pay: one after the other.
TEST(BatchAttention, TwoBatchesHaveTheResultsOfTheirOwnRuns) {
  AttentionCase decode{.kv_dtype = DType::kBF16, .lens = {{1, 300}, {1, 0}, {1, 77}}, .options = {.sm_scale = 0.3f}};
  AttentionCase prefill{.d_qk = 32, .d_vo = 48, .table = Table::kRagged, .lens = {{70, 300}}};
  prefill.options = {.causal = true, .window_left = 90};
  for (CpuLevel level : levels()) {
    AttentionProblem d(decode), p(prefill), d_alone(decode), p_alone(prefill);
    attention::BatchAttention few(at(level)), many(at(level));
    many.plan(p.args);
    few.plan(d.args, AttentionEntry::kBatchAttention, &many);
    EXPECT_FALSE(few.runs_beside());
    std::vector<uint8_t> room[2];
    const auto give_workspace = [](attention::BatchAttention& batch, AttentionProblem& x, std::vector<uint8_t>& bytes) {
      bytes.assign(size_t(batch.workspace_bytes()), 0xff);
      x.args.workspace = view_of(bytes.data(), {int64_t(bytes.size())});
    };
    give_workspace(few, d, room[0]), give_workspace(many, p, room[1]);
    few.run_beside(d.args, many, p.args);
    EXPECT_TRUE(within(d, reference::attention(d.args)));
    EXPECT_TRUE(within(p, reference::attention(p.args)));
    d_alone.args.workspace = d.args.workspace, p_alone.args.workspace = p.args.workspace;
    few.run(d_alone.args), many.run(p_alone.args);
    EXPECT_TRUE(same(d, d_alone));
    EXPECT_TRUE(same(p, p_alone));
    AttentionArgs other = p.args;
    other.options.causal = false;
    EXPECT_THROW(few.run_beside(d.args, many, other), Error);
  }
}

TEST(BatchAttention, WorkspaceIsBoundedByTheWorkersNotTheBatch) {
  int64_t most = 0;
  for (const size_t batch_size : {1, 10, 200}) {
    AttentionProblem p({.num_kv_heads = 1,
                        .d_qk = 8,
                        .d_vo = 8,
                        .lens = std::vector<std::pair<int64_t, int64_t>>(batch_size, {1, 600})});
    attention::BatchAttention batch(at(CpuLevel::kAmxBf16));
    batch.plan(p.args);
    EXPECT_LE(batch.workspace_bytes(), batch.max_workspace_bytes());
    EXPECT_TRUE(most == 0 || most == batch.max_workspace_bytes());
    most = batch.max_workspace_bytes();
  }
}

// Two threads that call at the same time, on one pool and on one plan.
TEST(BatchAttention, HandlesAreThreadSafe) {
  AttentionProblem p({.lens = kMixed, .options = {.causal = true}}), q(p.c);
  attention::BatchAttention batch(at(CpuLevel::kAmxBf16));
  batch.plan(p.args);
  Tensor a(DType::kU8, {batch.workspace_bytes()}), b(DType::kU8, {batch.workspace_bytes()});
  p.args.workspace = a, q.args.workspace = b;
  runtime::ThreadPool two(2);
  parallel_for(two.executor(), 8,
               [&](int64_t i, int32_t thread) { i >= 0 && thread == 0 ? batch.run(p.args) : batch.run(q.args); });
  batch.run(p.args), batch.run(q.args);
  EXPECT_TRUE(same(p, q));
}

// A variant of the user's own: a bias by distance on the keys of the row's own block of 64, nothing outside it.
struct BlockLocal : attention::Defaults {
  float scale = 0.125f, slope = 0.01f;
  FULMEN_FN bool changes_logits() const { return true; }
  FULMEN_FN attention::KvRange visible(attention::Row row) const {
    const int32_t end = attention::causal_end(row);
    return {end == 0 ? 0 : (end - 1) / 64 * 64, end};
  }
  template <class F, class I>
  FULMEN_FN F logit(attention::Row row, I kv_idx, F x) const {
    using math::cast_to;
    return x * F(scale) + F(slope) * cast_to(F(), kv_idx - I(row.qo_idx));
  }
  FULMEN_FN float scale_log2() const { return math::kLog2e; }
};

// Runs a user's variant through the headers, with splits and merges, on more threads than one.
template <class V>
void run_variant(AttentionProblem& p, const V& variant) {
  AttentionArgs a = p.args;
  std::vector<attention::PlanRequest> requests;
  const AttentionDims dims = attention::prepare(a, AttentionEntry::kBatchAttention, requests);
  attention::PlanConfig config = attention::plan_config(a, dims);
  cpu::FULMEN_CPU_NS::configure(a, 3, config);
  const attention::Plan plan = attention::make_plan(config, requests);
  std::vector<uint8_t> workspace(size_t(cpu::FULMEN_CPU_NS::attention_workspace_bytes(a, dims, plan.view(), 3)));
  cpu::FULMEN_CPU_NS::attention(a, dims, plan.view(), variant, workspace.data(), int64_t(workspace.size()),
                                three_threads());
}

TEST(Variants, AUsersStructRunsThroughTheHeaders) {
  AttentionProblem p({.kv_dtype = DType::kBF16, .lens = {{70, 150}, {1, 64}, {3, 10}}});
  run_variant(p, BlockLocal{});
  EXPECT_TRUE(within(p, reference::attention(p.args, BlockLocal{})));
}

// Sigmoid attention: every key has a weight of its own, 1 / (1 + exp(-z - bias)), and nothing is normalised.
struct Sigmoid : attention::Defaults {
  static constexpr bool kSoftmax = false;
  float scale = 0.125f, bias = -1.f;
  FULMEN_FN bool changes_logits() const { return true; }
  FULMEN_FN attention::KvRange visible(attention::Row row) const { return {0, attention::causal_end(row)}; }
  template <class F, class I>
  FULMEN_FN F logit(attention::Row, I, F x) const {
    return x * F(scale) + F(bias);
  }
  template <class F, class I>
  FULMEN_FN F weight(attention::Row, I, F z) const {
    using math::tanh;
    return tanh(z * F(0.5f)) * F(0.5f) + F(0.5f);
  }
};

TEST(Variants, WeightsWithoutSoftmaxMatchTheOracle) {
  for (const DType t : {DType::kF32, DType::kBF16, DType::kE4M3}) {
    AttentionProblem p({.kv_dtype = t, .lens = {{40, 700}, {1, 2000}, {3, 10}, {9, 2}, {2, 0}}});
    run_variant(p, Sigmoid{});
    EXPECT_TRUE(within(p, reference::attention(p.args, Sigmoid{})));
  }
}

}  // namespace
}  // namespace fulmen::testing
