// SPDX-License-Identifier: Apache-2.0
// rope_quantize_fp8 and rope_append_paged_kv_cache: the rotation of reference/rope.h, scaled, in the output's dtype.
// Bound: rope's, 2 units for the scale (it may be multiplied into sin and cos), and the rounding of the output. What is
// copied without a change of dtype is exact.
#pragma once
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>
#include <fulmen/reference/append_paged_kv_cache.h>
#include <fulmen/reference/rope.h>

namespace fulmen::reference {

inline double scale_for(DType out, double scale) { return kFp8.has(out) ? scale : 1; }

// Not rotated.
inline Values narrowed(const TensorView& x, DType out, double scale) {
  Values y(x.defined() ? size_t(x.num_elements()) : 0);
  for (size_t i = 0; i < y.size(); ++i) {
    const double v = element(x, int64_t(i));
    y[i] = out == x.dtype ? Bounded{v, 0} : rounded_to({v * scale, std::abs(v * scale) * kUnit}, out);
  }
  return y;
}

struct RopeQuantizeFp8 {
  Values q_rope, k_rope, q_nope, k_nope;
};

inline RopeQuantizeFp8 rope_quantize_fp8(const RopeQuantizeFp8Args& a) {
  const RopeArgs r = rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles);
  const int64_t dim = a.q_rope.shape[2];
  return {rope_one(r, a.q_rope, a.q_rope_out, dim, a.q_scale), rope_one(r, a.k_rope, a.k_rope_out, dim, a.kv_scale),
          narrowed(a.q_nope, a.q_rope_out.dtype, a.q_scale), narrowed(a.k_nope, a.q_rope_out.dtype, a.kv_scale)};
}

// Elements of a cache after the op, from the new rows' values.
inline Values appended_values(const RopeAppendPagedKvCacheArgs& a, const Values& rows, const TensorView& cache) {
  if (!cache.defined()) return {};
  const std::vector<int64_t> token = appended_tokens({.batch_indices = a.batch_indices,
                                                      .positions = a.positions,
                                                      .k_cache = cache,
                                                      .kv_indices = a.kv_indices,
                                                      .kv_indptr = a.kv_indptr});
  const int64_t row = cache.shape[2] * cache.shape[3];
  Values after(size_t(cache.num_elements()));
  for (int64_t i = 0; i < cache.num_elements(); ++i) {
    const int64_t t = token[size_t(i / row)];
    after[size_t(i)] = t < 0 ? Bounded{element(cache, i), 0} : rows[size_t(t * row + i % row)];
  }
  return after;
}

struct RopeAppend {
  Values q_rope, q_nope, k_rope_cache, k_nope_cache, v_cache;
};

// Call it before the op: it reads what the caches hold.
inline RopeAppend rope_append_paged_kv_cache(const RopeAppendPagedKvCacheArgs& a) {
  const RopeArgs r = rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles);
  const int64_t dim = a.q_rope.shape[2];
  const DType q = a.q_rope_out.dtype, kv = a.k_rope_cache.dtype;
  const double q_scale = scale_for(q, a.q_scale), kv_scale = scale_for(kv, a.kv_scale);
  TensorView k_rows = a.k_rope;  // its rows in the cache's dtype; every token has an owner, so none is read
  k_rows.dtype = kv;
  return {rope_one(r, a.q_rope, a.q_rope_out, dim, q_scale), narrowed(a.q_nope, q, q_scale),
          appended_values(a, rope_one(r, a.k_rope, k_rows, dim, kv_scale), a.k_rope_cache),
          appended_values(a, narrowed(a.k_nope, kv, kv_scale), a.k_nope_cache),
          appended_values(a, narrowed(a.v, kv, kv_scale), a.v_cache)};
}

}  // namespace fulmen::reference
