// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope.h>
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {

void rope_(Tensor q, MaybeTensor k, Tensor q_out, MaybeTensor k_out, MaybeTensor pos_ids, MaybeTensor indptr,
           MaybeTensor offsets, MaybeTensor cos_sin_cache, int64_t rotary_dim, bool interleave, double rope_scale,
           double rope_theta, double low_freq_factor, double high_freq_factor, int64_t old_context_len) {
  const TensorView queries = view(q);
  rope({.q = queries,
        .k = view(k),
        .q_out = view(q_out),
        .k_out = view(k_out),
        .pos_ids = view(pos_ids),
        .indptr = view(indptr),
        .offsets = view(offsets),
        .cos_sin_cache = view(cos_sin_cache),
        .rotary_dim = rotary_dim,
        .interleave = interleave,
        .rope_scale = rope_scale,
        .rope_theta = rope_theta,
        .low_freq_factor = low_freq_factor,
        .high_freq_factor = high_freq_factor,
        .old_context_len = old_context_len},
       context_of(queries));
}

void rope_quantize_fp8_(Tensor q_rope, Tensor k_rope, MaybeTensor q_nope, MaybeTensor k_nope, Tensor q_rope_out,
                        Tensor k_rope_out, MaybeTensor q_nope_out, MaybeTensor k_nope_out, Tensor pos_ids,
                        MaybeTensor cos_sin_cache, bool interleave, double rope_scale, double rope_theta,
                        double q_scale, double kv_scale) {
  const TensorView queries = view(q_rope);
  rope_quantize_fp8({.q_rope = queries,
                     .k_rope = view(k_rope),
                     .q_nope = view(q_nope),
                     .k_nope = view(k_nope),
                     .q_rope_out = view(q_rope_out),
                     .k_rope_out = view(k_rope_out),
                     .q_nope_out = view(q_nope_out),
                     .k_nope_out = view(k_nope_out),
                     .pos_ids = view(pos_ids),
                     .cos_sin_cache = view(cos_sin_cache),
                     .angles = {.interleave = interleave, .rope_scale = rope_scale, .rope_theta = rope_theta},
                     .q_scale = float(q_scale),
                     .kv_scale = float(kv_scale)},
                    context_of(queries));
}

void rope_append_paged_kv_cache_(Tensor q_rope, Tensor k_rope, MaybeTensor q_nope, MaybeTensor k_nope, MaybeTensor v,
                                 Tensor q_rope_out, MaybeTensor q_nope_out, Tensor k_rope_cache,
                                 MaybeTensor k_nope_cache, MaybeTensor v_cache, Tensor pos_ids, Tensor batch_indices,
                                 Tensor positions, Tensor kv_indices, Tensor kv_indptr, MaybeTensor cos_sin_cache,
                                 bool interleave, double rope_scale, double rope_theta, double q_scale,
                                 double kv_scale) {
  const TensorView queries = view(q_rope);
  rope_append_paged_kv_cache({.q_rope = queries,
                              .k_rope = view(k_rope),
                              .q_nope = view(q_nope),
                              .k_nope = view(k_nope),
                              .v = view(v),
                              .q_rope_out = view(q_rope_out),
                              .q_nope_out = view(q_nope_out),
                              .k_rope_cache = view(k_rope_cache),
                              .k_nope_cache = view(k_nope_cache),
                              .v_cache = view(v_cache),
                              .pos_ids = view(pos_ids),
                              .batch_indices = view(batch_indices),
                              .positions = view(positions),
                              .kv_indices = view(kv_indices),
                              .kv_indptr = view(kv_indptr),
                              .cos_sin_cache = view(cos_sin_cache),
                              .angles = {.interleave = interleave, .rope_scale = rope_scale, .rope_theta = rope_theta},
                              .q_scale = float(q_scale),
                              .kv_scale = float(kv_scale)},
                             context_of(queries));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    rope,
    "q, k, q_out, k_out, pos_ids, indptr, offsets, cos_sin_cache, rotary_dim, interleave, rope_scale, rope_theta, "
    "low_freq_factor, high_freq_factor, old_context_len",
    "rotates q and k by position; pos_ids, or indptr and offsets; rotary_dim 0: all; old_context_len > 0: Llama 3.1");
FULMEN_FFI_EXPORT(rope_quantize_fp8,
                  "q_rope, k_rope, q_nope, k_nope, q_rope_out, k_rope_out, q_nope_out, k_nope_out, pos_ids, "
                  "cos_sin_cache, interleave, rope_scale, rope_theta, q_scale, kv_scale",
                  "rotates q_rope and k_rope; all four parts times their scale to FP8");
FULMEN_FFI_EXPORT(
    rope_append_paged_kv_cache,
    "q_rope, k_rope, q_nope, k_nope, v, q_rope_out, q_nope_out, k_rope_cache, k_nope_cache, v_cache, pos_ids, "
    "batch_indices, positions, kv_indices, kv_indptr, cos_sin_cache, interleave, rope_scale, rope_theta, q_scale, "
    "kv_scale",
    "rotates q_rope and k_rope; keys and values go to their pages; FP8 outputs are scaled");
