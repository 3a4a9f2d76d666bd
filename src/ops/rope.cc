// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope.h>
#include <fulmen/runtime/registry.h>

#include <algorithm>

#include "src/ops/checks.h"

namespace fulmen {
namespace {

void check_positions(const RopeArgs& a) {
  if (a.indptr.defined() != a.offsets.defined())
    fail("rope", a.indptr.defined() ? "offsets" : "indptr", "is missing, expected indptr and offsets or neither");
  if (a.pos_ids.defined() == a.indptr.defined())
    fail("rope", "pos_ids", a.pos_ids.defined() ? "is given besides indptr" : "is missing, and so is indptr");
}

int64_t rotary_dim_of(const RopeArgs& a) {
  const int64_t given = a.rotary_dim != 0           ? a.rotary_dim
                        : a.cos_sin_cache.defined() ? a.cos_sin_cache.shape[1]
                                                    : a.q.shape[2];
  if (a.cos_sin_cache.defined() && a.cos_sin_cache.shape[1] != given)
    fail("rope", "cos_sin_cache",
         "dim 1 (rotary_dim) is " + std::to_string(a.cos_sin_cache.shape[1]) + ", expected " + std::to_string(given));
  return given;
}

}  // namespace

void check_angles(std::string_view op, const RopeArgs& a) {
  require(a.rope_scale > 0, op, "rope_scale", a.rope_scale, "a positive number");
  require(a.rope_theta > 0, op, "rope_theta", a.rope_theta, "a positive number");
  require(a.old_context_len >= 0, op, "old_context_len", a.old_context_len, "0 or more");
  if (a.old_context_len > 0 && !(a.high_freq_factor > a.low_freq_factor))
    require(false, op, "high_freq_factor", a.high_freq_factor, "more than low_freq_factor");
}

RopeDims check(const RopeArgs& a) {
  const Dims d =
      check(kRopeSchema, {&a.q, &a.k, &a.q_out, &a.k_out, &a.pos_ids, &a.indptr, &a.offsets, &a.cos_sin_cache});
  require_same_dtype("rope", "q_out", a.q_out, a.q, "q");
  if (a.k.defined() != a.k_out.defined())
    fail("rope", a.k.defined() ? "k_out" : "k", "is missing, expected k and k_out or neither");
  if (a.k.defined()) {
    require_same_dtype("rope", "k", a.k, a.q, "q");
    require_same_dtype("rope", "k_out", a.k_out, a.q, "q");
  }
  check_positions(a);
  const int64_t rotary_dim = rotary_dim_of(a);
  require(rotary_dim >= 0 && rotary_dim % 2 == 0 && rotary_dim <= std::min(kMaxRotaryDim, d["head_dim"]), "rope",
          "rotary_dim", rotary_dim,
          [&] { return "an even number up to head_dim " + std::to_string(d["head_dim"]) + " and 1024"; });
  check_angles("rope", a);
  return {d["nnz"],        d["num_qo_heads"], a.k.defined() ? d["num_kv_heads"] : 0, d["head_dim"], rotary_dim,
          d["batch_size"], d["max_position"]};
}

void rope(const RopeArgs& args, const Context& context) {
  static const runtime::OpHandle kOp = runtime::op_handle("rope");
  const RopeDims d = check(args);
  if (d.nnz * d.head_dim == 0) return;
  runtime::launch(kOp, args.q, &args, context);
}

}  // namespace fulmen
