// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/reference/append_paged_kv_cache.h>

#include <algorithm>
#include <numeric>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct Case {
  DType dtype = DType::kBF16;
  std::vector<int64_t> kv_lens = {20, 0, 7, 16, 33};  // after the append
  std::vector<int64_t> append_lens = {5, 0, 7, 1, 20};
  int64_t page_size = 8, num_kv_heads = 2, head_dim_qk = 16, head_dim_vo = 24;
  bool hnd = false, one_tensor = false;
  DType ids = DType::kI32;
};

// A view of an owned [.., A, B, ..] tensor with two axes exchanged: HND memory read as NHD.
TensorView transposed(TensorView v, int32_t a, int32_t b) {
  std::swap(v.shape[a], v.shape[b]);
  std::swap(v.strides[a], v.strides[b]);
  return v;
}

struct Problem {
  Tensor key, value, k_cache, v_cache, batch_indices, positions, indices, indptr, last_page_len;
  AppendPagedKvCacheArgs args;
  explicit Problem(const Case& c) {
    const int64_t nnz = std::accumulate(c.append_lens.begin(), c.append_lens.end(), int64_t(0)) + 2;  // two of padding
    const int64_t batch_size = int64_t(c.kv_lens.size());
    std::vector<int64_t> first_page{0};
    for (int64_t len : c.kv_lens) first_page.push_back(first_page.back() + (len + c.page_size - 1) / c.page_size);
    const int64_t num_pages = first_page.back() + 3;
    const std::vector<int64_t> k_shape = shape(c, num_pages, c.head_dim_qk),
                               v_shape = shape(c, num_pages, c.head_dim_vo);
    key = Tensor(c.dtype, {nnz, c.num_kv_heads, c.head_dim_qk}, 3);
    value = Tensor(c.dtype, {nnz, c.num_kv_heads, c.head_dim_vo});
    k_cache = Tensor(c.dtype,
                     c.one_tensor ? std::vector<int64_t>{num_pages, 2, k_shape[1], k_shape[2], k_shape[3]} : k_shape);
    v_cache = Tensor(c.dtype, v_shape, 5);
    batch_indices = Tensor(c.ids, {nnz}), positions = Tensor(c.ids, {nnz});
    indices = Tensor(c.ids, {first_page.back()}), indptr = Tensor(c.ids, {batch_size + 1});
    last_page_len = Tensor(c.ids, {batch_size});
    key.fill_normal(1), value.fill_normal(2), k_cache.fill_normal(3), v_cache.fill_normal(4);
    fill_tables(c, first_page, num_pages);
    args = {.append_key = key,
            .append_value = value,
            .batch_indices = batch_indices,
            .positions = positions,
            .k_cache = cache_view(c, k_cache, 0),
            .v_cache = cache_view(c, c.one_tensor ? k_cache : v_cache, 1),
            .kv_indices = indices,
            .kv_indptr = indptr,
            .last_page_len = last_page_len};
  }

 private:
  static std::vector<int64_t> shape(const Case& c, int64_t num_pages, int64_t dim) {
    if (c.hnd) return {num_pages, c.num_kv_heads, c.page_size, dim};
    return {num_pages, c.page_size, c.num_kv_heads, dim};
  }
  static TensorView cache_view(const Case& c, const Tensor& t, int64_t which) {
    TensorView v = t;
    if (c.one_tensor) {
      v.data = static_cast<char*>(v.data) + which * v.strides[1] * size_of(v.dtype);
      for (int32_t i = 1; i < 4; ++i) v.shape[i] = v.shape[i + 1], v.strides[i] = v.strides[i + 1];
      v.rank = 4;
    }
    return c.hnd ? transposed(v, 1, 2) : v;
  }
  void fill_tables(const Case& c, const std::vector<int64_t>& first_page, int64_t num_pages) {
    std::vector<int64_t> pages(static_cast<size_t>(num_pages));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937_64(9));
    indices.fill([&](int64_t i) { return double(pages[size_t(i)]); });
    indptr.fill([&](int64_t b) { return double(first_page[size_t(b)]); });
    last_page_len.fill([&](int64_t b) {
      const int64_t len = c.kv_lens[size_t(b)];
      return len == 0 ? 0 : double((len - 1) % c.page_size + 1);
    });
    int64_t t = 0;
    for (size_t b = 0; b < c.kv_lens.size(); ++b)
      for (int64_t i = 0; i < c.append_lens[b]; ++i, ++t) {
        batch_indices.set(t, double(b));
        positions.set(t, double(c.kv_lens[b] - c.append_lens[b] + i));
      }
    for (; t < batch_indices.view().num_elements(); ++t) batch_indices.set(t, -1), positions.set(t, 1e9);
  }
};

TEST(AppendPagedKvCache, MovesEveryRowToItsSlotAndNothingElse) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kE4M3, DType::kE5M2})
    for (int64_t page_size : {1, 5, 16})
      for (bool hnd : {false, true})
        for (bool one_tensor : {false, true})
          for (DType ids : {DType::kI32, DType::kI64})
            for (CpuLevel level : levels()) {
              Problem p({.dtype = dtype,
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
  Problem p({.dtype = DType::kF32});
  p.key.poison(0xff);  // NaN with a payload
  append_paged_kv_cache(p.args);
  const int64_t row = 2 * 16, token_page = int64_t(reference::element(p.indices, 1)), slot = 15 - 8;
  EXPECT_EQ(p.k_cache.data<uint32_t>()[(token_page * 8 + slot) * row], 0xffffffffu);  // position 15 of request 0
}

TEST(AppendPagedKvCache, ReferenceCatchesSeededDefects) {
  Problem p(Case{});
  const auto expected = reference::appended(p.args, p.args.append_key, p.args.k_cache);
  p.positions.set(0, reference::element(p.positions, 0) - 1);  // one slot too early
  append_paged_kv_cache(p.args);
  EXPECT_GT(worst_ratio(p.args.k_cache, expected), 0);
}

TEST(AppendPagedKvCache, NoTokensAreLegal) {
  Problem p({.kv_lens = {0}, .append_lens = {0}});
  EXPECT_NO_THROW(append_paged_kv_cache(p.args));  // two tokens of padding, no page
  AppendPagedKvCacheArgs a = p.args;
  for (TensorView* t : {&a.append_key, &a.append_value, &a.batch_indices, &a.positions}) t->shape[0] = 0;
  EXPECT_NO_THROW(append_paged_kv_cache(a));
}

TEST(AppendPagedKvCacheCheck, NamesRequestAndPositionOfABadIndexAndWritesNothing) {
  const auto error_and_clean = [](auto change) {
    Problem p(Case{});
    change(p);
    const Tensor before = p.k_cache;
    const std::string error = error_of([&] { append_paged_kv_cache(p.args); });
    EXPECT_TRUE(before.same_bytes(p.k_cache));
    return error;
  };
  EXPECT_EQ(error_and_clean([](Problem& p) { p.positions.set(4, 20); }),
            "append_paged_kv_cache: positions[4] is 20, expected 0 to 19: request 0 has 3 pages of 8");
  EXPECT_EQ(error_and_clean([](Problem& p) { p.positions.set(4, -1); }),
            "append_paged_kv_cache: positions[4] is -1, expected 0 to 19: request 0 has 3 pages of 8");
  EXPECT_EQ(error_and_clean([](Problem& p) { p.batch_indices.set(4, 5); }),
            "append_paged_kv_cache: batch_indices[4] is 5, expected less than batch_size 5");
  EXPECT_EQ(error_and_clean([](Problem& p) { p.indices.set(2, 14); }),
            "append_paged_kv_cache: kv_indices[2] is 14, expected 0 to 13, for position 16 of request 0");
  EXPECT_EQ(error_and_clean([](Problem& p) { p.indptr.set(2, 12); }),
            "append_paged_kv_cache: kv_indptr[2] is 12, expected 3 to 11");
}

TEST(AppendPagedKvCacheCheck, NamesWhatIsWrong) {
  Problem p(Case{});
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
  Problem p(Case{});
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

// ckv and kpe as slices of one [pages, page_size, 48] tensor.
struct MlaProblem {
  Problem base{{.num_kv_heads = 1, .head_dim_qk = 32, .head_dim_vo = 16}};
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
    const AppendPagedKvCacheArgs a = as_kv_cache(p.args);
    const auto ckv = reference::appended(a, a.append_key, a.k_cache),
               kpe = reference::appended(a, a.append_value, a.v_cache);
    append_paged_mla_kv_cache(p.args, at(level));
    EXPECT_EQ(worst_ratio(a.k_cache, ckv), 0);
    EXPECT_EQ(worst_ratio(a.v_cache, kpe), 0);
    EXPECT_TRUE(p.cache.guards_intact());
  }
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
