// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

RopeAppendPagedKvCacheDims check(const RopeAppendPagedKvCacheArgs& a) {
  constexpr const char* kOp = "rope_append_paged_kv_cache";
  const Dims d = check(
      kRopeAppendPagedKvCacheSchema,
      {&a.q_rope, &a.k_rope, &a.q_nope, &a.k_nope, &a.v, &a.q_rope_out, &a.q_nope_out, &a.k_rope_cache, &a.k_nope_cache,
       &a.v_cache, &a.pos_ids, &a.batch_indices, &a.positions, &a.kv_indices, &a.kv_indptr, &a.cos_sin_cache});
  require_same_dtype(kOp, "k_rope", a.k_rope, a.q_rope, "q_rope");
  if (!kFp8.has(a.q_rope_out.dtype)) require_same_dtype(kOp, "q_rope_out", a.q_rope_out, a.q_rope, "q_rope");
  if (!kFp8.has(a.k_rope_cache.dtype)) require_same_dtype(kOp, "k_rope_cache", a.k_rope_cache, a.q_rope, "q_rope");
  require_pair(kOp, "q_nope", a.q_nope, a.q_rope, "q_nope_out", a.q_nope_out, a.q_rope_out);
  require_pair(kOp, "k_nope", a.k_nope, a.q_rope, "k_nope_cache", a.k_nope_cache, a.k_rope_cache);
  require_pair(kOp, "v", a.v, a.q_rope, "v_cache", a.v_cache, a.k_rope_cache);
  require_rope_dim(kOp, d["rope_dim"]);
  check_angles(kOp, rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles));
  return {d["nnz"], d["num_qo_heads"], d["num_kv_heads"], d["rope_dim"], d["num_pages"], d["page_size"]};
}

void rope_append_paged_kv_cache(const RopeAppendPagedKvCacheArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("rope_append_paged_kv_cache");
  if (check(args).nnz == 0) return;
  runtime::launch(kOp, args.q_rope, &args, context);
}

}  // namespace fulmen
