// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope_quantize_fp8.h>
#include <fulmen/runtime/registry.h>

#include "src/ops/checks.h"

namespace fulmen {

RopeQuantizeFp8Dims check(const RopeQuantizeFp8Args& a) {
  constexpr const char* kOp = "rope_quantize_fp8";
  const Dims d =
      check(kRopeQuantizeFp8Schema, {&a.q_rope, &a.k_rope, &a.q_nope, &a.k_nope, &a.q_rope_out, &a.k_rope_out,
                                     &a.q_nope_out, &a.k_nope_out, &a.pos_ids, &a.cos_sin_cache});
  require_same_dtype(kOp, "k_rope", a.k_rope, a.q_rope, "q_rope");
  require_same_dtype(kOp, "k_rope_out", a.k_rope_out, a.q_rope_out, "q_rope_out");
  require_pair(kOp, "q_nope", a.q_nope, a.q_rope, "q_nope_out", a.q_nope_out, a.q_rope_out);
  require_pair(kOp, "k_nope", a.k_nope, a.q_rope, "k_nope_out", a.k_nope_out, a.q_rope_out);
  require_rope_dim(kOp, d["rope_dim"]);
  check_angles(kOp, rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles));
  return {d["nnz"], d["num_qo_heads"], d["num_kv_heads"], d["rope_dim"]};
}

void rope_quantize_fp8(const RopeQuantizeFp8Args& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("rope_quantize_fp8");
  if (check(args).nnz == 0) return;
  runtime::launch(kOp, args.q_rope, &args, context);
}

}  // namespace fulmen
