// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/reference/append_paged_mla_kv_cache.h>

#include "tests/support/append_problem.h"
#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

// ckv and kpe as slices of one [pages, page_size, 48] tensor.
struct MlaProblem {
  AppendProblem base{{.num_kv_heads = 1, .head_dim_qk = 32, .head_dim_vo = 16}};
  Tensor cache{DType::kBF16, {14, 8, 48}};
  AppendPagedMlaKvCacheArgs args;
  MlaProblem() {
    cache.fill_normal(5);
    const AppendPagedKvCacheArgs& a = base.args;
    args = {.append_ckv = drop_axis(a.append_key, 1),
            .append_kpe = drop_axis(a.append_value, 1),
            .batch_indices = a.batch_indices,
            .positions = a.positions,
            .ckv_cache = cache,
            .kpe_cache = cache,
            .kv_indices = a.kv_indices,
            .kv_indptr = a.kv_indptr};
    args.ckv_cache.shape[2] = 32;
    args.kpe_cache.shape[2] = 16;
    args.kpe_cache.data = cache.data<bf16>() + 32;
  }
  static TensorView drop_axis(TensorView v, int32_t axis) {
    for (int32_t i = axis; i + 1 < v.rank; ++i) v.shape[i] = v.shape[i + 1], v.strides[i] = v.strides[i + 1];
    --v.rank;
    return v;
  }
};

TEST(AppendPagedMlaKvCache, MovesEveryRowToItsSlotAndNothingElse) {
  for (CpuLevel level : levels()) {
    MlaProblem p;
    const reference::AppendedMla expected = reference::appended(p.args);
    append_paged_mla_kv_cache(p.args, at(level));
    EXPECT_EQ(worst_ratio(p.args.ckv_cache, expected.ckv), 0);
    EXPECT_EQ(worst_ratio(p.args.kpe_cache, expected.kpe), 0);
    EXPECT_TRUE(p.cache.guards_intact());
  }
}

TEST(AppendPagedMlaKvCache, ReferenceCatchesSeededDefects) {
  MlaProblem p;
  const reference::AppendedMla expected = reference::appended(p.args);
  p.base.positions.set(0, reference::element(p.base.positions, 0) - 1);  // one slot too early
  append_paged_mla_kv_cache(p.args);
  EXPECT_GT(worst_ratio(p.args.kpe_cache, expected.kpe), 0);
}

TEST(AppendPagedMlaKvCacheCheck, NamesWhatIsWrong) {
  MlaProblem p;
  p.base.positions.set(0, 24);
  EXPECT_EQ(error_of([&] { append_paged_mla_kv_cache(p.args); }),
            "append_paged_mla_kv_cache: positions[0] is 24, expected 0 to 23: request 0 has 3 pages of 8");
}

TEST(AppendPagedMlaKvCacheCheck, RefusesEveryBrokenRule) {
  MlaProblem p;
  const AppendPagedMlaKvCacheArgs& v = p.args;
  expect_every_break_refused(kAppendPagedMlaKvCacheSchema,
                             {v.append_ckv, v.append_kpe, v.batch_indices, v.positions, v.ckv_cache, v.kpe_cache,
                              v.kv_indices, v.kv_indptr, v.last_page_len},
                             [&](const std::vector<TensorView>& t) {
                               AppendPagedMlaKvCacheArgs a = v;
                               a.append_ckv = t[0], a.append_kpe = t[1], a.batch_indices = t[2], a.positions = t[3];
                               a.ckv_cache = t[4], a.kpe_cache = t[5], a.kv_indices = t[6], a.kv_indptr = t[7];
                               check(a);
                             });
}

}  // namespace
}  // namespace fulmen::testing
