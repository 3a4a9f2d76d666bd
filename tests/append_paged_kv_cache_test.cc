// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/reference/append_paged_kv_cache.h>

#include "tests/support/append_problem.h"
#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

TEST(AppendPagedKvCache, MovesEveryRowToItsSlotAndNothingElse) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2})
    for (int64_t page_size : {1, 5, 16})
      for (bool hnd : {false, true})
        for (bool one_tensor : {false, true})
          for (DType ids : {DType::kI32, DType::kI64})
            for (CpuLevel level : levels()) {
              AppendProblem p({.dtype = dtype,
                               .page_size = page_size,
                               .head_dim_vo = one_tensor ? 16 : 24,
                               .hnd = hnd,
                               .one_tensor = one_tensor,
                               .ids = ids});
              const auto k = reference::appended(p.args, p.args.append_key, p.args.k_cache);
              const auto v = reference::appended(p.args, p.args.append_value, p.args.v_cache);
              append_paged_kv_cache(p.args, at(level));
              EXPECT_EQ(worst_ratio(p.args.k_cache, k), 0) << name_of(dtype) << " page " << page_size << " hnd " << hnd;
              EXPECT_EQ(worst_ratio(p.args.v_cache, v), 0) << name_of(dtype) << " page " << page_size << " hnd " << hnd;
              EXPECT_TRUE(p.k_cache.guards_intact() && p.v_cache.guards_intact());
            }
}

TEST(AppendPagedKvCache, CopiesBitsAsTheyAre) {
  AppendProblem p({.dtype = DType::kF32});
  p.key.poison(0xff);  // NaN with a payload
  append_paged_kv_cache(p.args);
  const int64_t row = 2 * 16, token_page = int64_t(reference::element(p.indices, 1)), slot = 15 - 8;
  EXPECT_EQ(p.k_cache.data<uint32_t>()[(token_page * 8 + slot) * row], 0xffffffffu);  // position 15 of request 0
}

TEST(AppendPagedKvCache, ReferenceCatchesSeededDefects) {
  AppendProblem p(AppendCase{});
  const auto expected = reference::appended(p.args, p.args.append_key, p.args.k_cache);
  p.positions.set(0, reference::element(p.positions, 0) - 1);  // one slot too early
  append_paged_kv_cache(p.args);
  EXPECT_GT(worst_ratio(p.args.k_cache, expected), 0);
}

TEST(AppendPagedKvCache, NoTokensAreLegal) {
  AppendProblem p({.kv_lens = {0}, .append_lens = {0}});
  EXPECT_NO_THROW(append_paged_kv_cache(p.args));  // two tokens of padding, no page
  AppendPagedKvCacheArgs a = p.args;
  for (TensorView* t : {&a.append_key, &a.append_value, &a.batch_indices, &a.positions}) t->shape[0] = 0;
  EXPECT_NO_THROW(append_paged_kv_cache(a));
}

TEST(AppendPagedKvCacheCheck, NamesRequestAndPositionOfABadIndexAndWritesNothing) {
  const auto error_and_clean = [](auto change) {
    AppendProblem p(AppendCase{});
    change(p);
    const Tensor before = p.k_cache;
    const std::string error = error_of([&] { append_paged_kv_cache(p.args); });
    EXPECT_TRUE(before.same_bytes(p.k_cache));
    return error;
  };
  EXPECT_EQ(error_and_clean([](AppendProblem& p) { p.positions.set(4, 20); }),
            "append_paged_kv_cache: positions[4] is 20, expected 0 to 19: request 0 has 3 pages of 8");
  EXPECT_EQ(error_and_clean([](AppendProblem& p) { p.positions.set(4, -1); }),
            "append_paged_kv_cache: positions[4] is -1, expected 0 to 19: request 0 has 3 pages of 8");
  EXPECT_EQ(error_and_clean([](AppendProblem& p) { p.batch_indices.set(4, 5); }),
            "append_paged_kv_cache: batch_indices[4] is 5, expected less than batch_size 5");
  EXPECT_EQ(error_and_clean([](AppendProblem& p) { p.indices.set(2, 14); }),
            "append_paged_kv_cache: kv_indices[2] is 14, expected 0 to 13, for position 16 of request 0");
  EXPECT_EQ(error_and_clean([](AppendProblem& p) { p.indptr.set(2, 12); }),
            "append_paged_kv_cache: kv_indptr[2] is 12, expected 3 to 11");
}

TEST(AppendPagedKvCacheCheck, NamesWhatIsWrong) {
  AppendProblem p(AppendCase{});
  AppendPagedKvCacheArgs a = p.args;
  a.append_key.dtype = DType::kF16;
  EXPECT_EQ(error_of([&] { append_paged_kv_cache(a); }),
            "append_paged_kv_cache: k_cache dtype differs from append_key's");
  a = p.args;
  a.positions.shape[0] -= 1;
  EXPECT_EQ(error_of([&] { append_paged_kv_cache(a); }),
            "append_paged_kv_cache: positions dim 0 (nnz) is 34, expected 35");
}

TEST(AppendPagedKvCacheCheck, RefusesEveryBrokenRule) {
  AppendProblem p(AppendCase{});
  const AppendPagedKvCacheArgs& v = p.args;
  expect_every_break_refused(kAppendPagedKvCacheSchema,
                             {v.append_key, v.append_value, v.batch_indices, v.positions, v.k_cache, v.v_cache,
                              v.kv_indices, v.kv_indptr, v.last_page_len},
                             [&](const std::vector<TensorView>& t) {
                               AppendPagedKvCacheArgs a = v;
                               a.append_key = t[0], a.append_value = t[1], a.batch_indices = t[2], a.positions = t[3];
                               a.k_cache = t[4], a.v_cache = t[5], a.kv_indices = t[6], a.kv_indptr = t[7];
                               a.last_page_len = t[8];
                               check(a);
                             });
}

}  // namespace
}  // namespace fulmen::testing
