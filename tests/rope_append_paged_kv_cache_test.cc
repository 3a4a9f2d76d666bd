// SPDX-License-Identifier: Apache-2.0
// rope_append_paged_kv_cache and rope_quantize_fp8.
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>
#include <fulmen/reference/rope_append_paged_kv_cache.h>

#include "tests/support/levels.h"
#include "tests/support/rope_append_problem.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

const std::vector<DType> kDTypes{DType::kF32, DType::kF16, DType::kBF16};

// A view that is not an owned tensor: its guards are its owner's.
::testing::AssertionResult view_within(const TensorView& got, const reference::Values& expected) {
  if (!got.defined()) return ::testing::AssertionSuccess();
  const double worst = worst_ratio(got, expected);
  if (worst <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "worst error is " << worst << " of the bound";
}

TEST(RopeAppendPagedKvCache, StaysWithinTheBoundAtEveryLevel) {
  for (const RopeAppendCase& c : rope_append_cases(kDTypes))
    for (CpuLevel level : levels()) {
      RopeAppendProblem p(c);
      const reference::RopeAppend expected = reference::rope_append_paged_kv_cache(p.args);
      rope_append_paged_kv_cache(p.args, at(level));
      EXPECT_TRUE(within(p.q_rope_out, expected.q_rope));
      EXPECT_TRUE(view_within(p.args.q_nope_out, expected.q_nope));
      EXPECT_TRUE(view_within(p.args.k_rope_cache, expected.k_rope_cache));
      EXPECT_TRUE(view_within(p.args.k_nope_cache, expected.k_nope_cache));
      EXPECT_TRUE(view_within(p.args.v_cache, expected.v_cache));
      EXPECT_TRUE(p.k_cache.guards_intact() && p.v_cache.guards_intact());
      ASSERT_FALSE(HasFailure()) << runtime::name_of(level) << " " << describe(c);
    }
}

TEST(RopeQuantizeFp8, StaysWithinTheBoundAtEveryLevel) {
  for (const RopeAppendCase& c : rope_append_cases(kDTypes))
    for (CpuLevel level : levels()) {
      if (!kFp8.has(c.q_out)) continue;
      RopeAppendProblem p(c);
      const reference::RopeQuantizeFp8 expected = reference::rope_quantize_fp8(p.dense);
      rope_quantize_fp8(p.dense, at(level));
      EXPECT_TRUE(within(p.q_rope_out, expected.q_rope));
      EXPECT_TRUE(within(p.k_rope_out, expected.k_rope));
      EXPECT_TRUE(view_within(p.dense.q_nope_out, expected.q_nope));
      EXPECT_TRUE(view_within(p.dense.k_nope_out, expected.k_nope));
      ASSERT_FALSE(HasFailure()) << runtime::name_of(level) << " " << describe(c);
    }
}

TEST(RopeAppendPagedKvCache, IsRopeThenAppend) {
  for (CpuLevel level : levels()) {
    RopeAppendProblem p({.dtype = DType::kBF16});
    Tensor q = p.q_rope, k = p.k_rope, k_cache = p.k_cache, v_cache = p.v_cache;
    rope({.q = q, .k = k, .q_out = q, .k_out = k, .pos_ids = p.pos_ids}, at(level));
    append_paged_kv_cache({.append_key = k,
                           .append_value = p.v,
                           .batch_indices = p.args.batch_indices,
                           .positions = p.args.positions,
                           .k_cache = k_cache,
                           .v_cache = v_cache,
                           .kv_indices = p.args.kv_indices,
                           .kv_indptr = p.args.kv_indptr},
                          at(level));
    p.args.q_rope_out = p.q_rope;  // in place
    rope_append_paged_kv_cache(p.args, at(level));
    EXPECT_TRUE(p.q_rope.same_bytes(q));
    EXPECT_TRUE(p.k_cache.same_bytes(k_cache));
    EXPECT_TRUE(p.v_cache.same_bytes(v_cache));
  }
}

TEST(RopeAppendPagedKvCache, NothingIsLegal) {
  RopeAppendProblem p({.kv_lens = {3}, .append_lens = {1}});
  for (TensorView* t : {&p.args.q_rope, &p.args.k_rope, &p.args.v, &p.args.q_rope_out, &p.args.pos_ids,
                        &p.args.batch_indices, &p.args.positions})
    t->shape[0] = 0;
  EXPECT_NO_THROW(rope_append_paged_kv_cache(p.args));
}

TEST(RopeAppendPagedKvCache, ReferenceCatchesSeededDefects) {
  RopeAppendProblem p({});
  const reference::RopeAppend expected = reference::rope_append_paged_kv_cache(p.args);
  p.args.angles.rope_theta = 10001;
  rope_append_paged_kv_cache(p.args);
  EXPECT_FALSE(within(p.q_rope_out, expected.q_rope));
  EXPECT_FALSE(view_within(p.args.k_rope_cache, expected.k_rope_cache));
  RopeAppendProblem slot({});
  slot.paging.positions.set(0, reference::element(slot.paging.positions, 0) - 1);
  rope_append_paged_kv_cache(slot.args);
  EXPECT_FALSE(view_within(slot.args.v_cache, expected.v_cache));
}

TEST(RopeAppendPagedKvCacheCheck, NamesWhatIsWrong) {
  const auto message = [](auto change, bool dense = false) {
    RopeAppendProblem p(
        {.q_out = DType::kE4M3, .kv_out = DType::kE4M3, .q_nope_dim = 8, .k_nope_dim = 8, .table = true});
    change(p);
    try {
      dense ? rope_quantize_fp8(p.dense) : rope_append_paged_kv_cache(p.args);
    } catch (const Error& e) { return e.message; }
    return std::string("accepted");
  };
  EXPECT_EQ(message([](auto& p) { p.args.q_nope_out = {}; }),
            "rope_append_paged_kv_cache: q_nope_out is missing, expected q_nope and q_nope_out or neither");
  EXPECT_EQ(message([](auto& p) { p.args.v = {}; }),
            "rope_append_paged_kv_cache: v is missing, expected v and v_cache or neither");
  EXPECT_EQ(message([](auto& p) { p.args.v_cache.dtype = DType::kE5M2; }),
            "rope_append_paged_kv_cache: v_cache dtype is float8_e5m2, expected float8_e4m3fn");
  EXPECT_EQ(message([](auto& p) { p.args.angles.rope_theta = 0; }),
            "rope_append_paged_kv_cache: rope_theta is 0.000000, expected a positive number");
  EXPECT_EQ(message([](auto& p) { p.pos_ids.set(1, 4096); }),
            "rope_append_paged_kv_cache: pos_ids[1] is 4096, expected 0 to 4095, the rows of cos_sin_cache");
  EXPECT_EQ(message([](auto& p) { p.pos_ids.set(1, -1); }, true),
            "rope_quantize_fp8: pos_ids[1] is -1, expected 0 to 4095, the rows of cos_sin_cache");
  EXPECT_EQ(message([](auto& p) { p.dense.k_rope_out.dtype = DType::kE5M2; }, true),
            "rope_quantize_fp8: k_rope_out dtype differs from q_rope_out's");
  EXPECT_EQ(message([](auto& p) { p.paging.batch_indices.set(0, 9); }),
            "rope_append_paged_kv_cache: batch_indices[0] is 9, expected less than batch_size 5");
}

TEST(RopeAppendPagedKvCacheCheck, RefusesEveryBrokenRule) {
  RopeAppendProblem p({.q_out = DType::kE4M3, .kv_out = DType::kE4M3, .q_nope_dim = 8, .k_nope_dim = 8, .table = true});
  const auto& a = p.args;
  expect_every_break_refused(
      kRopeAppendPagedKvCacheSchema,
      {a.q_rope, a.k_rope, a.q_nope, a.k_nope, a.v, a.q_rope_out, a.q_nope_out, a.k_rope_cache, a.k_nope_cache,
       a.v_cache, a.pos_ids, a.batch_indices, a.positions, a.kv_indices, a.kv_indptr, a.cos_sin_cache},
      [](const std::vector<TensorView>& t) {
        check(RopeAppendPagedKvCacheArgs{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9], t[10], t[11],
                                         t[12], t[13], t[14], t[15]});
      });
  const auto& d = p.dense;
  expect_every_break_refused(kRopeQuantizeFp8Schema,
                             {d.q_rope, d.k_rope, d.q_nope, d.k_nope, d.q_rope_out, d.k_rope_out, d.q_nope_out,
                              d.k_nope_out, d.pos_ids, d.cos_sin_cache},
                             [](const std::vector<TensorView>& t) {
                               check(RopeQuantizeFp8Args{t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7], t[8], t[9]});
                             });
}

}  // namespace
}  // namespace fulmen::testing
