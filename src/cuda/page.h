// SPDX-License-Identifier: Apache-2.0
// append_paged_kv_cache, append_paged_mla_kv_cache: one kernel.
#pragma once
#include <fulmen/cuda/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

// cache: [num_pages, page_size, …]
PageTable page_table(const TensorView& batch_indices, const TensorView& positions, const TensorView& kv_indices,
                     const TensorView& kv_indptr, const TensorView& cache);

struct AppendPagedKvCache {
  using Args = AppendPagedKvCacheArgs;
  using Key = append_paged_kv_cache::Key;
  using Params = append_paged_kv_cache::Params;
  static constexpr const char* kName = "append_paged_kv_cache";
  static const TensorView& where(const Args& a) { return a.k_cache; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct AppendPagedMlaKvCache {
  using Args = AppendPagedMlaKvCacheArgs;
  using Key = AppendPagedKvCache::Key;
  static constexpr const char* kName = "append_paged_mla_kv_cache";
  static constexpr const char* kKernel = AppendPagedKvCache::kName;
  static const TensorView& where(const Args& a) { return a.ckv_cache; }
  static runtime::Refusal refuses(const Args& a) { return AppendPagedKvCache::refuses(as_kv_cache(a)); }
  static auto work(const Args& a, const Device& device) { return AppendPagedKvCache::work(as_kv_cache(a), device); }
  static std::vector<Key> common_keys() { return {}; }  // append_paged_kv_cache's
};

}  // namespace fulmen::cuda
