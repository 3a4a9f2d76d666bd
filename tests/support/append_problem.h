// SPDX-License-Identifier: Apache-2.0
// A batch whose last tokens are appended to a paged cache with shuffled pages; two tokens are padding.
#pragma once
#include <fulmen/ops/append_paged_kv_cache.h>

#include <algorithm>
#include <numeric>

#include "tests/support/tensor.h"

namespace fulmen::testing {

struct AppendCase {
  DType dtype = DType::kBF16;
  std::vector<int64_t> kv_lens = {20, 0, 7, 16, 33};  // after the append
  std::vector<int64_t> append_lens = {5, 0, 7, 1, 20};
  int64_t page_size = 8, num_kv_heads = 2, head_dim_qk = 16, head_dim_vo = 24;
  bool hnd = false, one_tensor = false;
  DType ids = DType::kI32;
};

// A view of an owned [.., A, B, ..] tensor with two axes exchanged: HND memory read as NHD.
inline TensorView transposed(TensorView v, int32_t a, int32_t b) {
  std::swap(v.shape[a], v.shape[b]);
  std::swap(v.strides[a], v.strides[b]);
  return v;
}

struct AppendProblem {
  Tensor key, value, k_cache, v_cache, batch_indices, positions, indices, indptr, last_page_len;
  AppendPagedKvCacheArgs args;
  explicit AppendProblem(const AppendCase& c) {
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
  static std::vector<int64_t> shape(const AppendCase& c, int64_t num_pages, int64_t dim) {
    if (c.hnd) return {num_pages, c.num_kv_heads, c.page_size, dim};
    return {num_pages, c.page_size, c.num_kv_heads, dim};
  }
  static TensorView cache_view(const AppendCase& c, const Tensor& t, int64_t which) {
    TensorView v = t;
    if (c.one_tensor) {
      v.data = static_cast<char*>(v.data) + which * v.strides[1] * size_of(v.dtype);
      for (int32_t i = 1; i < 4; ++i) v.shape[i] = v.shape[i + 1], v.strides[i] = v.strides[i + 1];
      v.rank = 4;
    }
    return c.hnd ? transposed(v, 1, 2) : v;
  }
  void fill_tables(const AppendCase& c, const std::vector<int64_t>& first_page, int64_t num_pages) {
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

}  // namespace fulmen::testing
