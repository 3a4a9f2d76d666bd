// SPDX-License-Identifier: Apache-2.0
// CPU rope_quantize_fp8 and rope_append_paged_kv_cache. A work item is one token: its angles once, scaled for queries
// and for keys, then every head straight to where it belongs. Called by src/cpu/levels/rope_append_paged_kv_cache.cc.
#pragma once
#include <fulmen/cpu/append_paged_kv_cache.h>
#include <fulmen/cpu/quant_fp8.h>
#include <fulmen/cpu/rope.h>
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>

FULMEN_CPU_BEGIN

// One token's heads of one kind: [num_heads, dim] here and where they go, which starts at out's element `offset`.
template <class T>
struct TokenHeads {
  const T* x;
  const TensorView& in;
  const TensorView& out;
  int64_t offset;
  float scale;  // of an FP8 out

  TokenHeads(const TensorView& x_view, int64_t token, const TensorView& out_view, int64_t out_offset, float s)
      : x(x_view.as<const T>() + token * x_view.strides[0]),
        in(x_view),
        out(out_view),
        offset(out_offset),
        scale(out_view.dtype == x_view.dtype ? 1 : s) {}

  // f(x, out) for every head, in out's type.
  template <class F>
  void for_each(F f) const {
    for_dtype<T, e4m3, e5m2>(out.dtype, [&]<class O>(O) {
      O* y = out.as<O>() + offset;
      for (int64_t head = 0; head < in.shape[1]; ++head)
        f(x + head * in.strides[1], y + head * out.strides[out.rank - 2]);
    });
  }
  void rotate(const RopeTable& angles, bool interleave) const {
    const int64_t dim = in.shape[2];
    RopeTable table;
    for (int64_t i = 0; i < dim / 2; i += kLanes) {
      store(table.cos + i, load(angles.cos + i) * splat(scale));
      store(table.sin + i, load(angles.sin + i) * splat(scale));
    }
    if (interleave) interleave_table(&table, dim / 2);
    for_each([&](const T* from, auto* to) {
      interleave ? rotate_pairs(from, to, table, dim) : rotate_halves(from, to, table, dim / 2);
    });
  }
  void copy() const {
    for_each([&]<class O>(const T* from, O* to) {
      if constexpr (std::is_same_v<T, O>)
        std::memmove(to, from, size_t(in.shape[2]) * sizeof(T));
      else
        scale_and_store(from, scale, to, in.shape[2]);
    });
  }
};

// f(token, angles) for every token, in parallel.
template <class F>
void for_tokens(const RopeArgs& a, int64_t nnz, int64_t dim, const Executor& executor, F f) {
  uint64_t turns[kMaxRotaryDim / 2];
  if (!a.cos_sin_cache.defined()) rope_frequencies(a, dim, turns);
  const Ids positions(a.pos_ids);
  const int64_t elements = (a.q.shape[1] + a.k.shape[1]) * dim;
  parallel_chunks(executor, nnz, 1 + 4096 / (elements + 1), [&](int64_t begin, int64_t end, int32_t) {
    RopeTable angles = {};
    for (int64_t t = begin; t < end; ++t) {
      fill_rope_table(a, turns, positions[t], dim / 2, &angles);
      f(t, angles);
    }
  });
}

inline void rope_quantize_fp8(const RopeQuantizeFp8Args& a, const Executor& executor) {
  const RopeArgs r = rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles);
  check_pos_ids("rope_quantize_fp8", a.pos_ids, a.cos_sin_cache);
  for_dtype<float, f16, bf16>(a.q_rope.dtype, [&]<class T>(T) {
    for_tokens(r, a.q_rope.shape[0], a.q_rope.shape[2], executor, [&](int64_t t, const RopeTable& angles) {
      const auto heads = [&](const TensorView& x, const TensorView& out, float scale) {
        return TokenHeads<T>(x, t, out, t * out.strides[0], scale);
      };
      heads(a.q_rope, a.q_rope_out, a.q_scale).rotate(angles, r.interleave);
      heads(a.k_rope, a.k_rope_out, a.kv_scale).rotate(angles, r.interleave);
      if (a.q_nope.defined()) heads(a.q_nope, a.q_nope_out, a.q_scale).copy();
      if (a.k_nope.defined()) heads(a.k_nope, a.k_nope_out, a.kv_scale).copy();
    });
  });
}

inline void rope_append_paged_kv_cache(const RopeAppendPagedKvCacheArgs& a, const Executor& executor) {
  const RopeArgs r = rope_args(a.q_rope, a.k_rope, a.pos_ids, a.cos_sin_cache, a.angles);
  const AppendPagedKvCacheArgs paging{.batch_indices = a.batch_indices,
                                      .positions = a.positions,
                                      .k_cache = a.k_rope_cache,
                                      .kv_indices = a.kv_indices,
                                      .kv_indptr = a.kv_indptr};
  const PagedSlots slots("rope_append_paged_kv_cache", paging);
  check_pos_ids("rope_append_paged_kv_cache", a.pos_ids, a.cos_sin_cache);
  slots.check_all();
  for_dtype<float, f16, bf16>(a.q_rope.dtype, [&]<class T>(T) {
    for_tokens(r, a.q_rope.shape[0], a.q_rope.shape[2], executor, [&](int64_t t, const RopeTable& angles) {
      const auto query = [&](const TensorView& x, const TensorView& out) {
        return TokenHeads<T>(x, t, out, t * out.strides[0], a.q_scale);
      };
      query(a.q_rope, a.q_rope_out).rotate(angles, r.interleave);
      if (a.q_nope.defined()) query(a.q_nope, a.q_nope_out).copy();
      int64_t page = 0, slot = 0;
      if (!slots.find(t, &page, &slot)) return;
      const auto cached = [&](const TensorView& x, const TensorView& cache) {
        return TokenHeads<T>(x, t, cache, page * cache.strides[0] + slot * cache.strides[1], a.kv_scale);
      };
      cached(a.k_rope, a.k_rope_cache).rotate(angles, r.interleave);
      if (a.k_nope.defined()) cached(a.k_nope, a.k_nope_cache).copy();
      if (a.v.defined()) cached(a.v, a.v_cache).copy();
    });
  });
}

FULMEN_CPU_END
