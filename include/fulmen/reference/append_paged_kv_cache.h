// SPDX-License-Identifier: Apache-2.0
// append_paged_kv_cache from the formula: which token lands in which slot. Exact, so it returns no bound.
#pragma once
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

// [num_pages · page_size] token whose row the slot holds after the op, −1: the slot keeps what it held.
inline std::vector<int64_t> appended_tokens(const AppendPagedKvCacheArgs& a) {
  const int64_t num_pages = a.k_cache.shape[0], page_size = a.k_cache.shape[1];
  std::vector<int64_t> token(size_t(num_pages * page_size), -1);
  for (int64_t t = 0; t < a.batch_indices.shape[0]; ++t) {
    const int64_t b = int64_t(element(a.batch_indices, t)), p = int64_t(element(a.positions, t));
    if (b < 0) continue;
    const int64_t page = int64_t(element(a.kv_indices, int64_t(element(a.kv_indptr, b)) + p / page_size));
    token[size_t(page * page_size + p % page_size)] = t;
  }
  return token;
}

// Elements of a cache after the op, row-major [num_pages, page_size, num_heads, head_dim].
inline Values appended(const AppendPagedKvCacheArgs& a, const TensorView& rows, const TensorView& cache_before) {
  const std::vector<int64_t> token = appended_tokens(a);
  const int64_t row = rows.shape[1] * rows.shape[2];
  Values cache(size_t(cache_before.num_elements()));
  for (int64_t i = 0; i < cache_before.num_elements(); ++i) {
    const int64_t t = token[size_t(i / row)];
    cache[size_t(i)] = {t < 0 ? element(cache_before, i) : element(rows, t * row + i % row), 0};
  }
  return cache;
}

}  // namespace fulmen::reference
