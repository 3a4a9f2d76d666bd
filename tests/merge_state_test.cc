// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/cascade.h>
#include <fulmen/ops/merge_state.h>
#include <fulmen/reference/merge_state.h>

#include "tests/support/attention_problem.h"
#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Case {
  DType dtype, out_dtype;
  int64_t num_tokens, num_states, num_heads, head_dim, row_padding;
  LogBase base;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (DType t : {DType::kF32, DType::kF16, DType::kBF16})
    for (DType out : {DType::kF32, DType::kF16, DType::kBF16})
      for (int64_t d : {8, 64, 72, 128}) all.push_back({t, out, 5, d / 8, 3, d, d % 3, LogBase(d / 8 % 2)});
  all.push_back({DType::kF32, DType::kF32, 2, 300, 1, 16, 0, LogBase::kE});
  return all;
}

struct Problem {
  Tensor v, s, out, lse;
  MergeStatesArgs args;
  explicit Problem(const Case& c)
      : v(c.dtype, {c.num_tokens, c.num_states, c.num_heads, c.head_dim}, c.row_padding),
        s(DType::kF32, {c.num_tokens, c.num_states, c.num_heads}),
        out(c.out_dtype, {c.num_tokens, c.num_heads, c.head_dim}, c.row_padding),
        lse(DType::kF32, {c.num_tokens, c.num_heads}) {
    v.fill_normal(1);
    s.fill_normal(2, 4);
    args = {.v = v, .s = s, .out = out, .lse = lse, .lse_base = c.base};
  }
  // State i as tensors of its own: views.
  TensorView state(const TensorView& t, int64_t i) const {
    TensorView x = t;
    x.data = static_cast<char*>(t.data) + i * t.strides[1] * size_of(t.dtype);
    for (int32_t a = 1; a + 1 < t.rank; ++a) x.shape[a] = t.shape[a + 1], x.strides[a] = t.strides[a + 1];
    --x.rank;
    return x;
  }
  MergeStateArgs two() const {
    return {state(v, 0), state(s, 0), state(v, 1), state(s, 1), out, lse, {}, args.lse_base};
  }
};

TEST(MergeState, StaysWithinTheReferencesBoundAtEveryLevel) {
  for (const Case& c : cases()) {
    Problem p(c);
    const reference::MergedValues all = reference::merge_states(p.args);
    for (CpuLevel level : levels()) {
      p.out.poison(0xff);
      merge_states(p.args, at(level));
      EXPECT_TRUE(within(p.out, all.out)) << runtime::name_of(level);
      EXPECT_TRUE(within(p.lse, all.lse)) << runtime::name_of(level);
      if (c.num_states < 2) continue;
      const reference::MergedValues pair = reference::merge_state(p.two());
      merge_state(p.two(), at(level));
      EXPECT_TRUE(within(p.out, pair.out)) << runtime::name_of(level);
      EXPECT_TRUE(within(p.lse, pair.lse)) << runtime::name_of(level);
    }
  }
}

TEST(MergeState, EmptyStatesAreNeutralWhateverTheyHold) {
  for (CpuLevel level : levels()) {
    Problem p({DType::kF32, DType::kF32, 2, 3, 2, 16, 0, LogBase::kE});
    for (int64_t i = 0; i < 3; ++i)
      for (int64_t h = 0; h < 2; ++h) {
        if (i == 1) continue;
        p.s.set(i * 2 + h, -INFINITY);  // token 0: only state 1 saw keys
        for (int64_t d = 0; d < 16; ++d) p.v.set((i * 2 + h) * 16 + d, NAN);
      }
    for (int64_t i = 0; i < 6; ++i) p.s.set(6 + i, -INFINITY);  // token 1: none did
    merge_states(p.args, at(level));
    for (int64_t h = 0; h < 2; ++h) {
      EXPECT_EQ(p.lse.data<float>()[h], p.s.data<float>()[2 + h]);
      EXPECT_EQ(p.lse.data<float>()[2 + h], -INFINITY);
      for (int64_t d = 0; d < 16; ++d) {
        EXPECT_EQ(p.out.data<float>()[h * 16 + d], p.v.data<float>()[(2 + h) * 16 + d]);
        EXPECT_EQ(p.out.data<float>()[(2 + h) * 16 + d], 0.f);
      }
    }
    const reference::MergedValues pair = reference::merge_state(p.two());
    merge_state(p.two(), at(level));
    EXPECT_TRUE(within(p.lse, pair.lse));
    EXPECT_TRUE(within(p.out, pair.out));
  }
}

TEST(MergeState, InPlaceSkipsMaskedRows) {
  Problem p({DType::kBF16, DType::kBF16, 4, 2, 3, 40, 0, LogBase::k2});
  const MergeStateArgs pair = p.two();
  merge_state(pair);
  Tensor v(DType::kBF16, {4, 3, 40}), s(DType::kF32, {4, 3}), mask(DType::kU8, {4});
  for (int64_t i = 0; i < v.view().num_elements(); ++i) v.set(i, reference::element(pair.v_a, i));
  for (int64_t i = 0; i < s.view().num_elements(); ++i) s.set(i, reference::element(pair.s_a, i));
  mask.fill([](int64_t i) { return i % 2; });
  merge_state_in_place(v, s, pair.v_b, pair.s_b, mask, LogBase::k2);
  for (int64_t i = 0; i < v.view().num_elements(); ++i)
    EXPECT_EQ(reference::element(v, i), reference::element(i / 120 % 2 ? p.out.view() : pair.v_a, i)) << i;
  for (int64_t i = 0; i < s.view().num_elements(); ++i)
    EXPECT_EQ(reference::element(s, i), reference::element(i / 3 % 2 ? p.lse.view() : pair.s_a, i)) << i;
}

TEST(MergeState, ManyStatesSkipMaskedRows) {
  for (CpuLevel level : levels()) {
    Problem p({DType::kBF16, DType::kBF16, 4, 3, 3, 40, 0, LogBase::kE});
    merge_states(p.args, at(level));
    const Tensor out = p.out, lse = p.lse;
    Tensor mask(DType::kU8, {4});
    mask.fill([](int64_t i) { return i % 2; });
    p.out.poison(0xff), p.lse.poison(0xff);
    p.args.mask = mask;
    merge_states(p.args, at(level));
    for (int64_t i = 0; i < out.view().num_elements(); ++i) {
      const uint16_t got = p.out.data<uint16_t>()[i];
      EXPECT_EQ(got, i / 120 % 2 ? out.data<uint16_t>()[i] : 0xffff) << i;
    }
    for (int64_t i = 0; i < 12; ++i)
      EXPECT_EQ(p.lse.data<uint32_t>()[i], i / 3 % 2 ? lse.data<uint32_t>()[i] : 0xffffffffu) << i;
  }
}

TEST(MergeState, ZeroSizesAreLegal) {
  Problem none({DType::kF32, DType::kF32, 0, 2, 2, 8, 0, LogBase::kE}),
      no_states({DType::kF32, DType::kF32, 2, 0, 2, 8, 0, LogBase::kE});
  EXPECT_NO_THROW(merge_states(none.args));
  merge_states(no_states.args);
  EXPECT_EQ(no_states.lse.data<float>()[3], -INFINITY);
  EXPECT_EQ(no_states.out.data<float>()[31], 0.f);
}

TEST(MergeState, ReferenceCatchesSeededDefects) {
  Problem p({DType::kF32, DType::kF32, 4, 5, 2, 64, 0, LogBase::kE});
  const reference::MergedValues want = reference::merge_states(p.args);
  p.args.lse_base = LogBase::k2;
  merge_states(p.args);
  EXPECT_FALSE(within(p.out, want.out));
  EXPECT_FALSE(within(p.lse, want.lse));
  p.args.lse_base = LogBase::kE;
  p.s.set(0, reference::element(p.s, 0) + 1e-4);
  merge_states(p.args);
  EXPECT_FALSE(within(p.out, want.out));
}

TEST(MergeStateCheck, RefusesEveryBrokenRule) {
  Problem p({DType::kF32, DType::kF32, 4, 2, 2, 64, 0, LogBase::kE});
  const MergeStateArgs a = p.two();
  expect_every_break_refused(kMergeStateSchema, {a.v_a, a.s_a, a.v_b, a.s_b, a.out, a.lse},
                             [&](const std::vector<TensorView>& t) {
                               check(MergeStateArgs{t[0], t[1], t[2], t[3], t[4], t[5], {}});
                             });
  expect_every_break_refused(kMergeStatesSchema, {p.args.v, p.args.s, p.args.out, p.args.lse},
                             [&](const std::vector<TensorView>& t) {
                               check(MergeStatesArgs{t[0], t[1], t[2], t[3]});
                             });
}

// Two levels, a prefix of 100 keys that all requests share and their own keys, against one call over the whole.
TEST(Cascade, EqualsAttentionOverTheWhole) {
  for (const bool causal : {false, true}) {
    const int64_t prefix = 100;
    AttentionProblem whole({.q_dtype = DType::kBF16,
                            .table = Table::kRagged,
                            .lens = {{3, prefix + 9}, {1, prefix + 40}, {2, prefix + 2}},
                            .options = {.causal = causal}});
    // the shared prefix is copied into every request of `whole`, so that one call may compute it
    for (int64_t b = 1; b < 3; ++b)
      for (int64_t i = 0; i < prefix * 2 * 64; ++i) {
        const int64_t begin = b == 1 ? prefix + 9 : 2 * prefix + 49;
        whole.k.set(begin * 128 + i, reference::element(whole.k, i));
        whole.v.set(begin * 128 + i, reference::element(whole.v, i));
      }
    const reference::AttentionValues want = reference::attention(whole.args);
    AttentionArgs shared = whole.args, own = whole.args;
    Tensor one(DType::kI32, {2}), keys(DType::kI32, {2}), out(DType::kF32, {6, 4, 64}), lse(DType::kF32, {6, 4});
    one.fill([](int64_t i) { return 6 * i; });
    keys.fill([&](int64_t i) { return prefix * i; });
    shared.qo_indptr = one, shared.kv_indptr = keys, shared.options.causal = false;
    shared.out = out, shared.lse = lse;
    // level 1: the own keys of each request, as block tables over pages of one token
    Tensor table(DType::kI32, {3, 40}), lens(DType::kI32, {3});
    const int64_t begins[] = {prefix, 2 * prefix + 9, 3 * prefix + 49}, counts[] = {9, 40, 2};
    for (int64_t b = 0; b < 3; ++b) {
      lens.set(b, double(counts[b]));
      for (int64_t t = 0; t < 40; ++t)
        table.set(b * 40 + t, double(std::min<int64_t>(begins[b] + t, whole.args.k.shape[0] - 1)));
    }
    own.k = insert_axis(own.k, 1), own.v = insert_axis(own.v, 1);
    own.kv_indptr = TensorView{};
    own.block_tables = table, own.seq_lens = lens;
    Tensor own_out(DType::kF32, {6, 4, 64}), own_lse(DType::kF32, {6, 4});
    own.out = own_out, own.lse = own_lse;
    const AttentionArgs levels[] = {shared, own};
    attention::cascade(levels);
    reference::Values twice_out = want.out, twice_lse = want.lse;
    for (auto& x : twice_out) x.bound *= 2;  // the merge is one more fold
    for (auto& x : twice_lse) x.bound *= 2;
    EXPECT_TRUE(within(out, twice_out));
    EXPECT_TRUE(within(lse, twice_lse));
  }
}

}  // namespace
}  // namespace fulmen::testing
