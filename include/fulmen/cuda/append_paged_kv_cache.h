// SPDX-License-Identifier: Apache-2.0
// What the append_paged_kv_cache kernel and the code that launches it share; fulmen/ops/append_paged_kv_cache.h says
// what it computes. Bytes are copied: elements appear as their size alone.
#pragma once
#include <fulmen/cuda/divisor.h>
#include <fulmen/cuda/page_table.h>

namespace fulmen::cuda::append_paged_kv_cache {

struct Key {
  int32_t vec_bytes = 1;
  int32_t batch = 4;  // loads in flight per thread

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("vec_bytes", k.vec_bytes), f("batch", k.batch);
  }
};

inline constexpr int32_t kThreads = 128;
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }

// New rows of one kind and their cache; strides in bytes.
struct Side {
  const char* rows;
  char* cache;
  int64_t token_stride, head_stride, page_stride, slot_stride, cache_head_stride;
  Divisor vecs_per_head;
  int32_t vecs;  // of all heads
};

struct Params {
  Side key, value;
  PageTable pages;
  int64_t nnz;
  Divisor parts;  // warps of a token
};

}  // namespace fulmen::cuda::append_paged_kv_cache
