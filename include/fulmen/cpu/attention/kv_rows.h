// SPDX-License-Identifier: Apache-2.0
// Where token t of one request lies in the K (or V) cache of one kv head, or of several, stride_head apart.
//   paged:       base + page_ids[t / page_size] * stride_page + (t % page_size) * stride_token
//   contiguous:  base + t * stride_token                                    (page_ids == null)
// base points at the (first) kv head; strides count elements; the head dimension has stride 1. Every product is 64-bit.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cpu/level.h>

FULMEN_CPU_BEGIN

template <class T>
struct KvRows {
  const T* base = nullptr;
  int64_t stride_page = 0, stride_token = 0;
  int64_t stride_head = 0;         // used where a block spans several kv heads
  const void* page_ids = nullptr;  // of this request, int32_t or int64_t; null: contiguous
  bool wide_ids = false;           // page_ids are int64_t
  int32_t page_size = 1;

  const T* page(int64_t i) const {
    const int64_t id =
        wide_ids ? static_cast<const int64_t*>(page_ids)[i] : int64_t(static_cast<const int32_t*>(page_ids)[i]);
    return base + id * stride_page;
  }
  const T* row(int64_t t) const {
    if (page_ids == nullptr) return base + t * stride_token;
    return page(t / page_size) + (t % page_size) * stride_token;
  }
  // rows[0..n) = row(begin), row(begin + 1), ...: one table look-up per page, one division per call.
  void rows(int64_t begin, int32_t n, const T** rows) const {
    if (page_ids == nullptr) {
      for (int32_t i = 0; i < n; ++i) rows[i] = base + (begin + i) * stride_token;
      return;
    }
    int64_t page_idx = begin / page_size;
    int32_t slot = int32_t(begin - page_idx * page_size);
    for (int32_t i = 0; i < n; ++page_idx, slot = 0) {
      const T* first = page(page_idx);
      for (; slot < page_size && i < n; ++slot, ++i) rows[i] = first + slot * stride_token;
    }
  }
};

FULMEN_CPU_END
