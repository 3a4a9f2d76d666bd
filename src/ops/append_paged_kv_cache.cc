// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

AppendPagedKvCacheDims check(const AppendPagedKvCacheArgs& a) {
  const Dims d =
      check(kAppendPagedKvCacheSchema, {&a.append_key, &a.append_value, &a.batch_indices, &a.positions, &a.k_cache,
                                        &a.v_cache, &a.kv_indices, &a.kv_indptr, &a.last_page_len});
  require_same_dtype("append_paged_kv_cache", "k_cache", a.k_cache, a.append_key, "append_key");
  require_same_dtype("append_paged_kv_cache", "v_cache", a.v_cache, a.append_value, "append_value");
  return {d["nnz"],         d["batch_size"], d["num_kv_heads"], d["head_dim_qk"],
          d["head_dim_vo"], d["num_pages"],  d["page_size"],    d["num_kv_indices"]};
}

void append_paged_kv_cache(const AppendPagedKvCacheArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("append_paged_kv_cache");
  const AppendPagedKvCacheDims d = check(args);
  if (d.nnz == 0) return;
  runtime::launch(kOp, args.k_cache, &args, context);
}

}  // namespace fulmen
