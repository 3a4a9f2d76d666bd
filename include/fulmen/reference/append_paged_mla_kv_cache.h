// SPDX-License-Identifier: Apache-2.0
// append_paged_mla_kv_cache: append_paged_kv_cache of one head. Exact.
#pragma once
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/reference/append_paged_kv_cache.h>

namespace fulmen::reference {

struct AppendedMla {
  Values ckv, kpe;  // the caches after the op
};

inline AppendedMla appended(const AppendPagedMlaKvCacheArgs& args) {
  const AppendPagedKvCacheArgs a = as_kv_cache(args);
  return {appended(a, a.append_key, a.k_cache), appended(a, a.append_value, a.v_cache)};
}

}  // namespace fulmen::reference
