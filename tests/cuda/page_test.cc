// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/append_paged_kv_cache.h>

#include <algorithm>
#include <random>

#include <fulmen/ops/append_paged_mla_kv_cache.h>

#include "tests/support/gpu_case.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct AppendCase {
  DType dtype = DType::kBF16;
  int64_t nnz = 37, num_heads = 4, dim_qk = 128, dim_vo = 128, page_size = 16;
  bool hnd = false;
  DType ids = DType::kI32;
};

class CudaPage : public OnGpu {};

// Three requests of 50, 0 and 90 tokens, of which the last ones are new; padding tokens between them.
struct AppendProblem {
  Tensor key, value, batch_indices, positions, k_cache, v_cache, kv_indices, kv_indptr;
  explicit AppendProblem(const AppendCase& c)
      : key(c.dtype, {c.nnz, c.num_heads, c.dim_qk}),
        value(c.dtype, {c.nnz, c.num_heads, c.dim_vo}),
        batch_indices(c.ids, {c.nnz}),
        positions(c.ids, {c.nnz}),
        k_cache(c.dtype, c.hnd ? std::vector<int64_t>{200, c.num_heads, c.page_size, c.dim_qk}
                               : std::vector<int64_t>{200, c.page_size, c.num_heads, c.dim_qk}),
        v_cache(c.dtype, c.hnd ? std::vector<int64_t>{200, c.num_heads, c.page_size, c.dim_vo}
                               : std::vector<int64_t>{200, c.page_size, c.num_heads, c.dim_vo}),
        kv_indices(c.ids, {0}),
        kv_indptr(c.ids, {4}) {
    key.fill_integers(1, -100, 100), value.fill_integers(2, -100, 100);
    const int64_t lens[] = {50, 0, 90};
    std::vector<int64_t> pages(200);
    for (size_t i = 0; i < pages.size(); ++i) pages[i] = int64_t(i);
    std::shuffle(pages.begin(), pages.end(), std::mt19937(3));
    int64_t indptr[4] = {};
    for (int64_t b = 0; b < 3; ++b) indptr[b + 1] = indptr[b] + (lens[b] + c.page_size - 1) / c.page_size;
    kv_indices = Tensor(c.ids, {indptr[3]});
    kv_indices.fill([&](int64_t i) { return double(pages[size_t(i)]); });
    kv_indptr.fill([&](int64_t i) { return double(indptr[i]); });
    int64_t next[3] = {lens[0] - c.nnz / 3, 0, lens[2] - c.nnz / 2};
    for (int64_t t = 0; t < c.nnz; ++t) {
      const int64_t b = t < c.nnz / 3 ? 0 : t < c.nnz / 3 + c.nnz / 2 ? 2 : -1;
      batch_indices.set(t, double(b));
      positions.set(t, b < 0 ? 0 : double(next[b]++));
    }
  }
};

TensorView nhd(TensorView cache, bool hnd) {
  if (hnd) std::swap(cache.shape[1], cache.shape[2]), std::swap(cache.strides[1], cache.strides[2]);
  return cache;
}

void check_append(const AppendCase& c) {
  AppendProblem p(c);
  const AppendPagedKvCacheArgs host{.append_key = p.key,
                                    .append_value = p.value,
                                    .batch_indices = p.batch_indices,
                                    .positions = p.positions,
                                    .k_cache = nhd(p.k_cache, c.hnd),
                                    .v_cache = nhd(p.v_cache, c.hnd),
                                    .kv_indices = p.kv_indices,
                                    .kv_indptr = p.kv_indptr};
  GpuTensor key(p.key), value(p.value), batch_indices(p.batch_indices), positions(p.positions), k_cache(p.k_cache),
      v_cache(p.v_cache), kv_indices(p.kv_indices), kv_indptr(p.kv_indptr);
  const std::vector<int64_t> token = reference::appended_tokens(host);
  append_paged_kv_cache({.append_key = key,
                         .append_value = value,
                         .batch_indices = batch_indices,
                         .positions = positions,
                         .k_cache = nhd(k_cache, c.hnd),
                         .v_cache = nhd(v_cache, c.hnd),
                         .kv_indices = kv_indices,
                         .kv_indptr = kv_indptr});
  k_cache.fetch(), v_cache.fetch();
  for (int32_t side = 0; side < 2; ++side) {
    const TensorView rows = side == 0 ? p.key : p.value, cache = side == 0 ? host.k_cache : host.v_cache;
    const int64_t row = rows.shape[1] * rows.shape[2];
    int64_t wrong = 0;
    for (int64_t i = 0; i < cache.num_elements(); ++i) {
      const int64_t t = token[size_t(i / row)];
      const double got = reference::element(cache, i);
      wrong += t < 0 ? !std::isnan(got) : got != reference::element(rows, t * row + i % row);  // else still poison
    }
    EXPECT_EQ(wrong, 0) << "side " << side;
  }
  EXPECT_TRUE(p.k_cache.guards_intact() && p.v_cache.guards_intact());
}

TEST_F(CudaPage, AppendCopiesEveryTokenToItsSlotAndNothingElse) {
  for (bool hnd : {false, true})
    for (int64_t page_size : {1, 5, 16}) {
      check_append({.page_size = page_size, .hnd = hnd});
      check_append({.dtype = DType::kF32,
                    .num_heads = 1,
                    .dim_qk = 20,
                    .dim_vo = 12,
                    .page_size = page_size,
                    .hnd = hnd,
                    .ids = DType::kI64});
      check_append(
          {.dtype = DType::kF16, .num_heads = 3, .dim_qk = 33, .dim_vo = 1, .page_size = page_size, .hnd = hnd});
      check_append(
          {.dtype = DType::kE4M3, .num_heads = 2, .dim_qk = 192, .dim_vo = 128, .page_size = page_size, .hnd = hnd});
    }
  check_append({.nnz = 2, .num_heads = 32, .dim_qk = 256, .dim_vo = 256});  // several warps per token
}

TEST_F(CudaPage, IndicesThatPointOutsideAreSkipped) {
  AppendProblem p({});
  p.batch_indices.set(0, 3), p.positions.set(1, 1e6), p.kv_indices.set(0, 1e6);
  GpuTensor key(p.key), value(p.value), batch_indices(p.batch_indices), positions(p.positions), k_cache(p.k_cache),
      v_cache(p.v_cache), kv_indices(p.kv_indices), kv_indptr(p.kv_indptr);
  append_paged_kv_cache({.append_key = key,
                         .append_value = value,
                         .batch_indices = batch_indices,
                         .positions = positions,
                         .k_cache = k_cache,
                         .v_cache = v_cache,
                         .kv_indices = kv_indices,
                         .kv_indptr = kv_indptr});
  EXPECT_TRUE(k_cache.fetch().guards_intact() && v_cache.fetch().guards_intact());
}

TEST_F(CudaPage, MlaIsTheSameCopy) {
  Tensor ckv(DType::kBF16, {5, 512}), kpe(DType::kBF16, {5, 64}), batch_indices(DType::kI32, {5}),
      positions(DType::kI32, {5});
  Tensor cache(DType::kBF16, {3, 4, 576}), kv_indices(DType::kI32, {2}), kv_indptr(DType::kI32, {2});
  ckv.fill_integers(1, -90, 90), kpe.fill_integers(2, -90, 90);
  batch_indices.fill([](int64_t) { return 0; }), positions.fill([](int64_t i) { return double(i); });
  kv_indices.fill([](int64_t i) { return i == 0 ? 2 : 0; }), kv_indptr.fill([](int64_t i) { return i == 0 ? 0 : 2; });
  GpuTensor dckv(ckv), dkpe(kpe), db(batch_indices), dp(positions), dcache(cache), di(kv_indices), dptr(kv_indptr);
  TensorView ckv_cache = dcache, kpe_cache = dcache;
  ckv_cache.shape[2] = 512, kpe_cache.shape[2] = 64, kpe_cache.data = kpe_cache.as<uint16_t>() + 512;
  append_paged_mla_kv_cache({.append_ckv = dckv,
                             .append_kpe = dkpe,
                             .batch_indices = db,
                             .positions = dp,
                             .ckv_cache = ckv_cache,
                             .kpe_cache = kpe_cache,
                             .kv_indices = di,
                             .kv_indptr = dptr});
  dcache.fetch();
  for (int64_t t = 0; t < 5; ++t)
    for (int64_t i = 0; i < 576; ++i) {
      const int64_t slot = t < 4 ? 8 + t : 0;
      EXPECT_EQ(reference::element(cache, slot * 576 + i),
                i < 512 ? reference::element(ckv, t * 512 + i) : reference::element(kpe, t * 64 + i - 512));
    }
}

}  // namespace
}  // namespace fulmen::testing
