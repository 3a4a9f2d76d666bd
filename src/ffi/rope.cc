// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rope.h>

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

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    rope,
    "q, k, q_out, k_out, pos_ids, indptr, offsets, cos_sin_cache, rotary_dim, interleave, rope_scale, rope_theta, "
    "low_freq_factor, high_freq_factor, old_context_len",
    "rotates q and k by position; pos_ids, or indptr and offsets; rotary_dim 0: all; old_context_len > 0: Llama 3.1");
