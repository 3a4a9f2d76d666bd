// SPDX-License-Identifier: Apache-2.0
// rope: rotary position embedding of queries and keys (Su et al. 2021).
//   (x, y) → (x cos a − y sin a, y cos a + x sin a),   a = position · freq_i,   0 ≤ i < rotary_dim / 2
//   freq_i = rope_theta^(−2i / rotary_dim) / rope_scale
// Pairs: (x_i, x_{i + rotary_dim/2}), or with interleave (x_{2i}, x_{2i+1}). Elements from rotary_dim on are copied.
// Llama 3.1 (old_context_len > 0), with f = rope_theta^(−2i / rotary_dim):
//   smooth = clamp((f · old_context_len / 2π − low_freq_factor) / (high_freq_factor − low_freq_factor), 0, 1)
//   freq_i = (1 − smooth) · f / rope_scale + smooth · f
// Positions come from pos_ids, or of token t of request b from offsets[b] + t − indptr[b]; tokens that no request owns
// are left alone. With cos_sin_cache the angles are rows of that table instead: cos of all i, then sin of all i. Angles
// are reduced in 64-bit fixed point: |error| of sin and cos <= 1e-6 up to position 10M, in practice 2e-7.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct RopeArgs {
  TensorView q;              // [nnz, num_qo_heads, head_dim] f32, f16, bf16
  TensorView k;              // [nnz, num_kv_heads, head_dim] q's dtype; optional
  TensorView q_out;          // like q, written; may be q itself
  TensorView k_out;          // like k, written; may be k itself; present when k is
  TensorView pos_ids;        // [nnz] i32, i64; or instead:
  TensorView indptr;         // [batch_size+1] i32, i64: first token of each request
  TensorView offsets;        // [batch_size] i32, i64: position of each request's first token
  TensorView cos_sin_cache;  // [max_position, rotary_dim] f32, f16, bf16; optional
  int64_t rotary_dim = 0;    // even, at most head_dim; 0: the cache's, or head_dim
  bool interleave = false;
  double rope_scale = 1, rope_theta = 1e4;           // > 0
  double low_freq_factor = 1, high_freq_factor = 4;  // Llama 3.1
  int64_t old_context_len = 0;                       // Llama 3.1: 8192; 0: plain RoPE
};

inline constexpr OpSchema kRopeSchema{
    "rope",
    {
        {"q", "nnz num_qo_heads head_dim", kFloats, Access::kRead, Presence::kRequired, "queries"},
        {"k", "nnz num_kv_heads head_dim", kFloats, Access::kRead, Presence::kOptional, "keys, q's dtype"},
        {"q_out", "nnz num_qo_heads head_dim", kFloats, Access::kWrite, Presence::kRequired, "may be q itself", "q"},
        {"k_out", "nnz num_kv_heads head_dim", kFloats, Access::kWrite, Presence::kOptional, "may be k itself", "k"},
        {"pos_ids", "nnz", kIds, Access::kRead, Presence::kOptional, "position of each token"},
        {"indptr", "batch_size+1", kIds, Access::kRead, Presence::kOptional, "first token of each request"},
        {"offsets", "batch_size", kIds, Access::kRead, Presence::kOptional, "position of each first token"},
        {"cos_sin_cache", "max_position rotary_dim", kFloats, Access::kRead, Presence::kOptional,
         "cos of every pair, then sin of every pair"},
    }};

struct RopeDims {
  int64_t nnz, num_qo_heads, num_kv_heads, head_dim, rotary_dim, batch_size, max_position;
};
inline constexpr int64_t kMaxRotaryDim = 1024;

RopeDims check(const RopeArgs& args);  // throws Error{kInvalidArgument}
void rope(const RopeArgs& args, const Context& context = {});

// What angles depend on besides positions, for the ops that rotate on the way to somewhere else.
struct RopeAngles {
  bool interleave = false;
  double rope_scale = 1, rope_theta = 1e4;           // > 0
  double low_freq_factor = 1, high_freq_factor = 4;  // Llama 3.1
  int64_t old_context_len = 0;                       // Llama 3.1: 8192; 0: plain RoPE
};

// Their rotation as a call of rope without outputs.
inline RopeArgs rope_args(const TensorView& q, const TensorView& k, const TensorView& pos_ids,
                          const TensorView& cos_sin_cache, const RopeAngles& angles) {
  return {.q = q,
          .k = k,
          .pos_ids = pos_ids,
          .cos_sin_cache = cos_sin_cache,
          .interleave = angles.interleave,
          .rope_scale = angles.rope_scale,
          .rope_theta = angles.rope_theta,
          .low_freq_factor = angles.low_freq_factor,
          .high_freq_factor = angles.high_freq_factor,
          .old_context_len = angles.old_context_len};
}
void check_angles(std::string_view op, const RopeArgs& args);  // throws Error{kInvalidArgument} naming a scalar

inline Cost cost(const RopeArgs& args) {
  const double n = double(args.q.num_elements()) + (args.k.defined() ? double(args.k.num_elements()) : 0);
  const double size = size_of(args.q.dtype);
  return {.bytes = 2 * n * size, .flops = 3 * n, .bytes_written = n * size};
}

}  // namespace fulmen
