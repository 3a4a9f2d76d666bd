// SPDX-License-Identifier: Apache-2.0
// rope_quantize_fp8: rotates queries and keys and narrows them to FP8, with the parts of them that are not rotated.
//   q_rope_out = fp8(q_scale · rope(q_rope)),   q_nope_out = fp8(q_scale · q_nope)
//   k_rope_out = fp8(kv_scale · rope(k_rope)),  k_nope_out = fp8(kv_scale · k_nope)
// Angles as in rope, from pos_ids; fp8 saturates. With one kv head it is the MLA form: k_rope is shared by all heads.
#pragma once
#include <fulmen/ops/rope.h>

namespace fulmen {

struct RopeQuantizeFp8Args {
  TensorView q_rope;         // [nnz, num_qo_heads, rope_dim] f32, f16, bf16
  TensorView k_rope;         // [nnz, num_kv_heads, rope_dim] q_rope's dtype
  TensorView q_nope;         // [nnz, num_qo_heads, q_nope_dim] q_rope's dtype, optional
  TensorView k_nope;         // [nnz, num_kv_heads, k_nope_dim] q_rope's dtype, optional
  TensorView q_rope_out;     // like q_rope, e4m3 or e5m2, written
  TensorView k_rope_out;     // like k_rope, q_rope_out's dtype, written
  TensorView q_nope_out;     // like q_nope, q_rope_out's dtype, written; present when q_nope is
  TensorView k_nope_out;     // like k_nope, q_rope_out's dtype, written; present when k_nope is
  TensorView pos_ids;        // [nnz] i32, i64
  TensorView cos_sin_cache;  // [max_position, rope_dim] f32, f16, bf16; optional
  RopeAngles angles = {};
  float q_scale = 1, kv_scale = 1;
};

inline constexpr OpSchema kRopeQuantizeFp8Schema{
    "rope_quantize_fp8",
    {
        {"q_rope", "nnz num_qo_heads rope_dim", kFloats, Access::kRead, Presence::kRequired, "queries, rotated part"},
        {"k_rope", "nnz num_kv_heads rope_dim", kFloats, Access::kRead, Presence::kRequired, "keys, rotated part"},
        {"q_nope", "nnz num_qo_heads q_nope_dim", kFloats, Access::kRead, Presence::kOptional, "the rest of queries"},
        {"k_nope", "nnz num_kv_heads k_nope_dim", kFloats, Access::kRead, Presence::kOptional, "the rest of keys"},
        {"q_rope_out", "nnz num_qo_heads rope_dim", kFp8, Access::kWrite},
        {"k_rope_out", "nnz num_kv_heads rope_dim", kFp8, Access::kWrite},
        {"q_nope_out", "nnz num_qo_heads q_nope_dim", kFp8, Access::kWrite, Presence::kOptional},
        {"k_nope_out", "nnz num_kv_heads k_nope_dim", kFp8, Access::kWrite, Presence::kOptional},
        {"pos_ids", "nnz", kIds, Access::kRead, Presence::kRequired, "position of each token"},
        {"cos_sin_cache", "max_position rope_dim", kFloats, Access::kRead, Presence::kOptional,
         "cos of every pair, then sin of every pair"},
    }};

struct RopeQuantizeFp8Dims {
  int64_t nnz, num_qo_heads, num_kv_heads, rope_dim;
};

RopeQuantizeFp8Dims check(const RopeQuantizeFp8Args& args);  // throws Error{kInvalidArgument}
void rope_quantize_fp8(const RopeQuantizeFp8Args& args, const Context& context = {});

inline Cost cost(const RopeQuantizeFp8Args& a) {
  double n = 0;
  for (const TensorView* t : {&a.q_rope, &a.k_rope, &a.q_nope, &a.k_nope})
    if (t->defined()) n += double(t->num_elements());
  return {.bytes = n * (size_of(a.q_rope.dtype) + 1), .flops = 4 * n, .bytes_written = n};
}

}  // namespace fulmen
