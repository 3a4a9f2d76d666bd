// SPDX-License-Identifier: Apache-2.0
// rope_append_paged_kv_cache: rotates queries and keys and writes keys and values to their slots of the paged cache, in
// one pass over new tokens.
//   q_rope_out = rope(q_rope),   q_nope_out = q_nope
//   b = batch_indices[t], p = positions[t], page = kv_indices[kv_indptr[b] + p / page_size], slot = p mod page_size
//   k_rope_cache[page, slot] = rope(k_rope[t]),   k_nope_cache[page, slot] = k_nope[t],   v_cache[page, slot] = v[t]
// Angles as in rope, from pos_ids. The nope parts are what is not rotated; a head's cache row is wherever the caches'
// strides say: [rope | nope] of one tensor, or an MLA cache's two tensors, with one kv head. Outputs have the inputs'
// dtype, or FP8: then the value times q_scale or kv_scale, saturating. A token whose batch index is negative is
// padding: its query is rotated, its key and value are skipped. On the CPU a bad index is refused before anything is
// written.
#pragma once
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>

namespace fulmen {

struct RopeAppendPagedKvCacheArgs {
  TensorView q_rope;         // [nnz, num_qo_heads, rope_dim] f32, f16, bf16
  TensorView k_rope;         // [nnz, num_kv_heads, rope_dim] q_rope's dtype
  TensorView q_nope;         // [nnz, num_qo_heads, q_nope_dim] q_rope's dtype, optional
  TensorView k_nope;         // [nnz, num_kv_heads, k_nope_dim] q_rope's dtype, optional
  TensorView v;              // [nnz, num_kv_heads, head_dim_vo] q_rope's dtype, optional
  TensorView q_rope_out;     // like q_rope, written; may be q_rope itself
  TensorView q_nope_out;     // like q_nope, written; present when q_nope is
  TensorView k_rope_cache;   // [num_pages, page_size, num_kv_heads, rope_dim], written
  TensorView k_nope_cache;   // [num_pages, page_size, num_kv_heads, k_nope_dim], written; present when k_nope is
  TensorView v_cache;        // [num_pages, page_size, num_kv_heads, head_dim_vo], written; present when v is
  TensorView pos_ids;        // [nnz] i32, i64: positions for the angles
  TensorView batch_indices;  // [nnz] i32, i64; negative: keys and values are skipped
  TensorView positions;      // [nnz] i32, i64, position in the request's kv
  TensorView kv_indices;     // [num_kv_indices] i32, i64, page numbers
  TensorView kv_indptr;      // [batch_size+1] i32, i64, offsets into kv_indices
  TensorView cos_sin_cache;  // [max_position, rope_dim] f32, f16, bf16; optional
  RopeAngles angles = {};
  float q_scale = 1, kv_scale = 1;  // multiply FP8 outputs
};

inline constexpr OpSchema kRopeAppendPagedKvCacheSchema{
    "rope_append_paged_kv_cache",
    {
        {"q_rope", "nnz num_qo_heads rope_dim", kFloats, Access::kRead, Presence::kRequired, "queries, rotated part"},
        {"k_rope", "nnz num_kv_heads rope_dim", kFloats, Access::kRead, Presence::kRequired, "keys, rotated part"},
        {"q_nope", "nnz num_qo_heads q_nope_dim", kFloats, Access::kRead, Presence::kOptional, "the rest of queries"},
        {"k_nope", "nnz num_kv_heads k_nope_dim", kFloats, Access::kRead, Presence::kOptional, "the rest of keys"},
        {"v", "nnz num_kv_heads head_dim_vo", kFloats, Access::kRead, Presence::kOptional, "values"},
        {"q_rope_out", "nnz num_qo_heads rope_dim", kFloats | kFp8, Access::kWrite, Presence::kRequired,
         "q_rope's dtype or FP8; may be q_rope itself", "q_rope"},
        {"q_nope_out", "nnz num_qo_heads q_nope_dim", kFloats | kFp8, Access::kWrite, Presence::kOptional,
         "q_rope_out's dtype"},
        {"k_rope_cache", "num_pages page_size num_kv_heads rope_dim", kFloats | kFp8, Access::kWrite,
         Presence::kRequired, "q_rope's dtype or FP8"},
        {"k_nope_cache", "num_pages page_size num_kv_heads k_nope_dim", kFloats | kFp8, Access::kWrite,
         Presence::kOptional, "k_rope_cache's dtype"},
        {"v_cache", "num_pages page_size num_kv_heads head_dim_vo", kFloats | kFp8, Access::kWrite, Presence::kOptional,
         "k_rope_cache's dtype"},
        {"pos_ids", "nnz", kIds, Access::kRead, Presence::kRequired, "position of each token, for its angles"},
        {"batch_indices", "nnz", kIds, Access::kRead, Presence::kRequired, "request of each token; negative: skipped"},
        {"positions", "nnz", kIds, Access::kRead, Presence::kRequired, "position of each token in its request"},
        {"kv_indices", "num_kv_indices", kIds, Access::kRead, Presence::kRequired, "page numbers of all requests"},
        {"kv_indptr", "batch_size+1", kIds, Access::kRead, Presence::kRequired, "first page of each request"},
        {"cos_sin_cache", "max_position rope_dim", kFloats, Access::kRead, Presence::kOptional,
         "cos of every pair, then sin of every pair"},
    }};

struct RopeAppendPagedKvCacheDims {
  int64_t nnz, num_qo_heads, num_kv_heads, rope_dim, num_pages, page_size;
};

RopeAppendPagedKvCacheDims check(const RopeAppendPagedKvCacheArgs& args);  // throws Error{kInvalidArgument}
void rope_append_paged_kv_cache(const RopeAppendPagedKvCacheArgs& args, const Context& context = {});

inline Cost cost(const RopeAppendPagedKvCacheArgs& a) {
  Cost c;
  for (const TensorView* t : {&a.q_rope, &a.k_rope, &a.q_nope, &a.k_nope, &a.v})
    if (t->defined()) {
      const double n = double(t->num_elements());
      const bool query = t == &a.q_rope || t == &a.q_nope;
      const double written = n * size_of(query ? a.q_rope_out.dtype : a.k_rope_cache.dtype);
      c.bytes += n * size_of(t->dtype) + written, c.flops += 3 * n, c.bytes_written += written;
    }
  return c;
}

}  // namespace fulmen
