// SPDX-License-Identifier: Apache-2.0
// What attention refuses, and what it says: op, tensor, request, position, expected and got.
#include <fulmen/attention/call.h>
#include <gtest/gtest.h>

#include "tests/support/attention_problem.h"
#include "tests/support/schema_breaker.h"

namespace fulmen::testing {
namespace {

const AttentionCase kCase{.lens = {{1, 40}, {2, 33}, {1, 0}}};

std::string refusal(AttentionProblem& p) {
  p.out.poison(0xff);
  const std::string text = error_of([&] { batch_attention(p.args); });
  for (int64_t i = 0; i < p.out.view().num_elements(); ++i)
    EXPECT_TRUE(std::isnan(reference::element(p.out, i))) << "something was written";
  return text;
}

TEST(AttentionCheck, ReportsPageIdsWithRequestAndPosition) {
  AttentionProblem p(kCase);
  const int64_t good = int64_t(reference::element(p.kv_indices, 5));
  for (const int64_t bad : {int64_t(9), int64_t(-1), int64_t(1) << 30}) {  // 3 + 3 pages, and 3 that nobody owns
    p.kv_indices.set(5, double(bad));
    EXPECT_EQ(refusal(p), "batch_attention: kv_indices of request 1 names page " + std::to_string(bad) +
                              " at its position 2, expected 0 to 8");
  }
  p.kv_indices.set(5, double(good));
  p.kv_indices.set(6, 1e6);  // past the last request: nobody's
  EXPECT_EQ(error_of([&] { batch_attention(p.args); }), "nothing was thrown");
  AttentionCase c = kCase;
  c.table = Table::kBlockTables, c.wide_ids = true;
  AttentionProblem q(c);
  q.block_tables.set(4 + 1, 0x1p40);
  EXPECT_EQ(refusal(q),
            "batch_attention: block_tables of request 1 names page 1099511627776 at its position 1, expected 0 to 8");
}

TEST(AttentionCheck, ReportsOffsetsAndLengths) {
  const auto broken = [](auto change, AttentionCase c = kCase) {
    AttentionProblem p(c);
    change(p);
    return refusal(p);
  };
  EXPECT_EQ(broken([](auto& p) { p.kv_indptr.set(2, 2); }),
            "batch_attention: kv_indptr of request 1 is 3 to 2 (positions 1 and 2), expected a range inside 0 to 8");
  EXPECT_EQ(broken([](auto& p) { p.kv_indptr.set(3, 9); }),
            "batch_attention: kv_indptr of request 2 is 6 to 9 (positions 2 and 3), expected a range inside 0 to 8");
  EXPECT_EQ(broken([](auto& p) { p.qo_indptr.set(0, -1); }),
            "batch_attention: qo_indptr of request 0 is -1 to 1 (positions 0 and 1), expected a range inside 0 to 4");
  EXPECT_EQ(broken([](auto& p) { p.last_page_len.set(1, 0); }),
            "batch_attention: last_page_len of request 1 is 0, expected 1 to 16");
  EXPECT_EQ(broken([](auto& p) { p.last_page_len.set(0, 17); }),
            "batch_attention: last_page_len of request 0 is 17, expected 1 to 16");
  AttentionCase c = kCase;
  c.table = Table::kBlockTables;
  EXPECT_EQ(broken([](auto& p) { p.seq_lens.set(2, 65); }, c),
            "batch_attention: seq_lens of request 2 is 65, expected 0 to 64, which block_tables has pages for");
  c = kCase, c.mask = true;
  EXPECT_EQ(broken([](auto& p) { p.mask_indptr.set(1, 6); }, c),
            "batch_attention: mask_indptr of request 1 needs 9 bytes from 6, custom_mask has 14");
}

TEST(AttentionCheck, ReportsTablesThatDoNotFit) {
  const auto broken = [](auto change, AttentionCase c = kCase) {
    AttentionProblem p(c);
    change(p, p.args);
    return refusal(p);
  };
  EXPECT_EQ(broken([](auto&, auto& a) { a.last_page_len = {}; }), "batch_attention: last_page_len is missing");
  EXPECT_EQ(broken([](auto& p, auto& a) { a.seq_lens = p.seq_lens; }),
            "batch_attention: last_page_len is given beside seq_lens");
  EXPECT_EQ(broken([](auto& p, auto& a) { a.block_tables = p.block_tables; }),
            "batch_attention: kv_indptr is given beside block_tables");
  EXPECT_EQ(broken([](auto&, auto& a) { a.qo_indptr = {}; }),
            "batch_attention: q has 4 rows, expected a multiple of batch_size, 3, where qo_indptr is missing");
  EXPECT_EQ(broken([](auto& p, auto& a) { a.mask_indptr = p.mask_indptr; }),
            "batch_attention: mask_indptr is given without custom_mask");
  AttentionCase ragged = kCase;
  ragged.table = Table::kRagged;
  EXPECT_EQ(broken([](auto& p, auto& a) { a.kv_indices = p.kv_indices; }, ragged),
            "batch_attention: kv_indices is given, but k is not paged");
  EXPECT_EQ(broken([](auto&, auto& a) { a.kv_indptr = {}; }, ragged),
            "batch_attention: kv_indptr is missing, but other tensors describe 3 requests");
}

TEST(AttentionCheck, ReportsOptionsAndDims) {
  const auto broken = [](auto change) {
    AttentionProblem p(kCase);
    change(p.args, p.args.options);
    return refusal(p);
  };
  EXPECT_EQ(broken([](auto&, auto& o) { o.window_left = -2; }),
            "batch_attention: window_left is -2, expected -1 or more");
  EXPECT_EQ(broken([](auto&, auto& o) { o.logits_soft_cap = -1; }),
            "batch_attention: logits_soft_cap is -1.000000, expected 0 or more");
  EXPECT_EQ(broken([](auto&, auto& o) { o.rope_scale = 0; }),
            "batch_attention: rope_scale is 0.000000, expected a positive number");
  EXPECT_EQ(broken([](auto& a, auto&) { a.q.shape[1] = a.out.shape[1] = a.lse.shape[1] = 3; }),
            "batch_attention: q num_qo_heads is 3, expected a multiple of num_kv_heads, 2");
  EXPECT_EQ(broken([](auto& a, auto&) { a.q.shape[2] = a.k.shape[3] = 12; }),
            "batch_attention: q head_dim is 12, expected a multiple of 8 from 8 to 576");
  EXPECT_EQ(broken([](auto& a, auto&) { a.out.shape[1] = 7; }),
            "batch_attention: out dim 1 (num_qo_heads) is 7, expected 4");
  EXPECT_EQ(broken([](auto& a, auto&) { a.v.dtype = DType::kF16; }),
            "batch_attention: v dtype is float16, expected k's, float32");
}

TEST(AttentionCheck, EntryPointsTakeTheirOwnTablesOnly) {
  AttentionProblem paged(kCase), ragged({.table = Table::kRagged, .lens = {{1, 8}}});
  EXPECT_EQ(error_of([&] { batch_decode(paged.args); }),
            "batch_decode: qo_indptr is given, which this op does not take");
  EXPECT_EQ(error_of([&] { single_prefill(ragged.args); }),
            "single_prefill: qo_indptr is given, which this op does not take");
  EXPECT_EQ(error_of([&] { batch_prefill_ragged(paged.args); }).find("batch_prefill_ragged: k rank is 4, expected 3"),
            0u);
  ragged.args.kv_indptr = TensorView{};
  EXPECT_EQ(error_of([&] { batch_prefill_ragged(ragged.args); }), "batch_prefill_ragged: kv_indptr is missing");
}

TEST(AttentionCheck, RefusesEveryBrokenRule) {
  for (const Table table : {Table::kRagged, Table::kCsr, Table::kBlockTables}) {
    AttentionCase c = kCase;
    c.table = table, c.mask = c.alibi = c.sinks = true;
    AttentionProblem p(c);
    const auto tensors = [](AttentionArgs& a) {
      return std::vector<TensorView*>{&a.q,
                                      &a.k,
                                      &a.v,
                                      &a.qo_indptr,
                                      &a.kv_indptr,
                                      &a.kv_indices,
                                      &a.last_page_len,
                                      &a.block_tables,
                                      &a.seq_lens,
                                      &a.out,
                                      &a.lse,
                                      &a.custom_mask,
                                      &a.mask_indptr,
                                      &a.alibi_slopes,
                                      &a.sinks,
                                      &a.workspace};
    };
    std::vector<TensorView> valid;
    for (TensorView* t : tensors(p.args)) valid.push_back(*t);
    const OpSchema& schema = attention_schema(AttentionEntry::kBatchAttention, KvLayout::kNHD, table != Table::kRagged);
    expect_every_break_refused(schema, valid, [&](const std::vector<TensorView>& t) {
      AttentionArgs a = p.args;
      const std::vector<TensorView*> fields = tensors(a);
      for (size_t i = 0; i < t.size(); ++i) *fields[i] = t[i];
      check(a);
    });
  }
}

}  // namespace
}  // namespace fulmen::testing
