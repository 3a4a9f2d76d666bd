// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

void check(const AppendPagedMlaKvCacheArgs& a) {
  check(kAppendPagedMlaKvCacheSchema, {&a.append_ckv, &a.append_kpe, &a.batch_indices, &a.positions, &a.ckv_cache,
                                       &a.kpe_cache, &a.kv_indices, &a.kv_indptr, &a.last_page_len});
  require_same_dtype("append_paged_mla_kv_cache", "ckv_cache", a.ckv_cache, a.append_ckv, "append_ckv");
  require_same_dtype("append_paged_mla_kv_cache", "kpe_cache", a.kpe_cache, a.append_kpe, "append_kpe");
}

void append_paged_mla_kv_cache(const AppendPagedMlaKvCacheArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("append_paged_mla_kv_cache");
  check(args);
  if (args.batch_indices.shape[0] == 0) return;
  runtime::launch(kOp, args.ckv_cache, &args, context);
}

}  // namespace fulmen
