// SPDX-License-Identifier: Apache-2.0
// CPU append_paged_kv_cache and append_paged_mla_kv_cache: a check of every index, then copies of whole rows, a token
// per work item. No SIMD of ours: memcpy. Called by src/cpu/levels/append_paged_{kv,mla_kv}_cache.cc.
#pragma once
#include <fulmen/core/executor.h>
#include <fulmen/cpu/index_checks.h>
#include <fulmen/cpu/level.h>
#include <fulmen/ops/append_paged_kv_cache.h>

#include <cstring>

FULMEN_CPU_BEGIN

class PagedSlots {
 public:
  PagedSlots(std::string_view op, const AppendPagedKvCacheArgs& a)
      : op_(op),
        a_(a),
        batch_(a.batch_indices),
        positions_(a.positions),
        indptr_(a.kv_indptr),
        indices_(a.kv_indices) {}

  // Page and slot of token t; false: padding.
  bool find(int64_t t, int64_t* page, int64_t* slot) const {
    const int64_t b = batch_[t];
    if (b < 0) return false;
    const int64_t page_size = a_.k_cache.shape[1], position = positions_[t];
    *page = indices_[indptr_[b] + position / page_size];
    *slot = position % page_size;
    return true;
  }

  void check_all() const {
    check_indptr(op_, "kv_indptr", a_.kv_indptr, a_.kv_indices.shape[0]);
    for (int64_t t = 0; t < a_.batch_indices.shape[0]; ++t) check_token(t);
  }

 private:
  void check_token(int64_t t) const {
    const int64_t b = batch_[t], batch_size = a_.kv_indptr.shape[0] - 1, page_size = a_.k_cache.shape[1];
    if (b < 0) return;
    if (b >= batch_size) fail_at(op_, "batch_indices", t, b, "less than batch_size " + std::to_string(batch_size));
    const int64_t num_pages = indptr_[b + 1] - indptr_[b];
    int64_t capacity = num_pages * page_size;
    if (a_.last_page_len.defined() && num_pages > 0) capacity += Ids(a_.last_page_len)[b] - page_size;
    const int64_t position = positions_[t];
    if (position < 0 || position >= capacity || position >= num_pages * page_size)
      fail_at(op_, "positions", t, position,
              "0 to " + std::to_string(capacity - 1) + ": request " + std::to_string(b) + " has " +
                  std::to_string(num_pages) + " pages of " + std::to_string(page_size));
    const int64_t at = indptr_[b] + position / page_size, page = indices_[at];
    if (page < 0 || page >= a_.k_cache.shape[0])
      fail_at(op_, "kv_indices", at, page,
              "0 to " + std::to_string(a_.k_cache.shape[0] - 1) + ", for position " + std::to_string(position) +
                  " of request " + std::to_string(b));
  }

  std::string_view op_;
  const AppendPagedKvCacheArgs& a_;
  Ids batch_, positions_, indptr_, indices_;
};

// The heads of one token; heads that lie next to each other on both sides move at once.
inline void copy_heads(const TensorView& rows, int64_t token, const TensorView& cache, int64_t page, int64_t slot) {
  const int64_t size = size_of(rows.dtype), num_heads = rows.shape[1], row_bytes = rows.shape[2] * size;
  const char* from = rows.as<const char>() + token * rows.strides[0] * size;
  char* to = cache.as<char>() + (page * cache.strides[0] + slot * cache.strides[1]) * size;
  if (num_heads == 0 || row_bytes == 0) return;
  if (num_heads == 1 || (rows.strides[1] == rows.shape[2] && cache.strides[2] == rows.shape[2])) {
    std::memcpy(to, from, size_t(row_bytes * num_heads));
    return;
  }
  for (int64_t head = 0; head < num_heads; ++head)
    std::memcpy(to + head * cache.strides[2] * size, from + head * rows.strides[1] * size, size_t(row_bytes));
}

inline void append_paged_kv_cache(std::string_view op, const AppendPagedKvCacheArgs& a, const Executor& executor) {
  const PagedSlots slots(op, a);
  slots.check_all();
  const int64_t row_bytes =
      a.append_key.shape[1] * (a.append_key.shape[2] + a.append_value.shape[2]) * size_of(a.append_key.dtype);
  parallel_chunks(executor, a.batch_indices.shape[0], 1 + 16384 / (row_bytes + 1),
                  [&](int64_t begin, int64_t end, int32_t) {
                    for (int64_t t = begin; t < end; ++t) {
                      int64_t page = 0, slot = 0;
                      if (!slots.find(t, &page, &slot)) continue;
                      copy_heads(a.append_key, t, a.k_cache, page, slot);
                      copy_heads(a.append_value, t, a.v_cache, page, slot);
                    }
                  });
}

FULMEN_CPU_END
