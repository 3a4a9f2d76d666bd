// SPDX-License-Identifier: Apache-2.0
// CPU append_paged_mla_kv_cache: the copy of append_paged_kv_cache with one head.
// Called by src/cpu/levels/append_paged_mla_kv_cache.cc.
#pragma once
#include <fulmen/cpu/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>

FULMEN_CPU_BEGIN

inline void append_paged_mla_kv_cache(const AppendPagedMlaKvCacheArgs& a, const Executor& executor) {
  append_paged_kv_cache("append_paged_mla_kv_cache", as_kv_cache(a), executor);
}

FULMEN_CPU_END
