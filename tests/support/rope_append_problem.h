// SPDX-License-Identifier: Apache-2.0
// New tokens whose queries and keys are rotated on the way, to a paged cache with shuffled pages or to dense outputs.
#pragma once
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>

#include <cmath>

#include "tests/support/append_problem.h"

namespace fulmen::testing {

struct RopeAppendCase {
  DType dtype = DType::kBF16, q_out = DType::kBF16, kv_out = DType::kBF16;
  int64_t num_qo_heads = 4, num_kv_heads = 2, rope_dim = 64, q_nope_dim = 0, k_nope_dim = 0, head_dim_vo = 64;
  bool interleave = false, hnd = false, table = false;
  DType ids = DType::kI32;
  int64_t padding = 0;
  std::vector<int64_t> kv_lens = {20, 0, 7, 16, 33}, append_lens = {5, 0, 7, 1, 20};
};

inline std::string describe(const RopeAppendCase& c) {
  return std::string(name_of(c.dtype)) + " to " + name_of(c.q_out) + " and " + name_of(c.kv_out) + " rope " +
         std::to_string(c.rope_dim) + " nope " + std::to_string(c.k_nope_dim) + (c.interleave ? " interleaved" : "") +
         (c.hnd ? " HND" : "") + (c.table ? " table" : "");
}

struct RopeAppendProblem {
  AppendProblem paging;
  Tensor q_rope, k_rope, q_nope, k_nope, v, q_rope_out, q_nope_out, k_cache, v_cache, pos_ids, table;
  Tensor k_rope_out, k_nope_out;
  RopeAppendPagedKvCacheArgs args;
  RopeQuantizeFp8Args dense;

  explicit RopeAppendProblem(const RopeAppendCase& c)
      : paging({.kv_lens = c.kv_lens, .append_lens = c.append_lens, .num_kv_heads = c.num_kv_heads, .ids = c.ids}) {
    const int64_t nnz = paging.batch_indices.view().shape[0], num_pages = paging.k_cache.view().shape[0];
    const auto tokens = [&](DType t, int64_t heads, int64_t dim) { return Tensor(t, {nnz, heads, dim}, c.padding); };
    q_rope = tokens(c.dtype, c.num_qo_heads, c.rope_dim), k_rope = tokens(c.dtype, c.num_kv_heads, c.rope_dim);
    q_nope = tokens(c.dtype, c.num_qo_heads, c.q_nope_dim), k_nope = tokens(c.dtype, c.num_kv_heads, c.k_nope_dim);
    v = tokens(c.dtype, c.num_kv_heads, c.head_dim_vo);
    q_rope_out = tokens(c.q_out, c.num_qo_heads, c.rope_dim),
    q_nope_out = tokens(c.q_out, c.num_qo_heads, c.q_nope_dim);
    k_rope_out = tokens(c.q_out, c.num_kv_heads, c.rope_dim),
    k_nope_out = tokens(c.q_out, c.num_kv_heads, c.k_nope_dim);
    k_cache = cache(c, num_pages, c.rope_dim + c.k_nope_dim), v_cache = cache(c, num_pages, c.head_dim_vo);
    pos_ids = Tensor(c.ids, {nnz}), table = Tensor(DType::kF32, {4096, c.rope_dim});
    uint64_t seed = 1;
    for (Tensor* t : {&q_rope, &k_rope, &q_nope, &k_nope, &v, &k_cache, &v_cache}) t->fill_normal(seed++);
    pos_ids.fill([&](int64_t t) { return double(c.table ? t * 577 % 4096 : t == 0 ? 9999999 : t * 12345); });
    table.fill([&](int64_t i) { return std::cos(double(i / c.rope_dim) * 0.01 + double(i % c.rope_dim)); });
    fill_args(c);
  }

 private:
  static Tensor cache(const RopeAppendCase& c, int64_t num_pages, int64_t dim) {
    if (c.hnd) return Tensor(c.kv_out, {num_pages, c.num_kv_heads, 8, dim});
    return Tensor(c.kv_out, {num_pages, 8, c.num_kv_heads, dim});
  }
  // Elements begin .. begin+dim-1 of every row.
  static TensorView part(const RopeAppendCase& c, const Tensor& t, int64_t begin, int64_t dim) {
    TensorView view = c.hnd ? transposed(t, 1, 2) : t.view();
    view.data = view.as<char>() + begin * size_of(view.dtype), view.shape[3] = dim;
    return view;
  }
  void fill_args(const RopeAppendCase& c) {
    args = {.q_rope = q_rope,
            .k_rope = k_rope,
            .q_rope_out = q_rope_out,
            .k_rope_cache = part(c, k_cache, 0, c.rope_dim),
            .pos_ids = pos_ids,
            .batch_indices = paging.batch_indices,
            .positions = paging.positions,
            .kv_indices = paging.indices,
            .kv_indptr = paging.indptr,
            .angles = {.interleave = c.interleave},
            .q_scale = 3.5f,
            .kv_scale = 0.75f};
    dense = {.q_rope = q_rope,
             .k_rope = k_rope,
             .q_rope_out = q_rope_out,
             .k_rope_out = k_rope_out,
             .pos_ids = pos_ids,
             .angles = {.interleave = c.interleave},
             .q_scale = 3.5f,
             .kv_scale = 0.75f};
    if (c.table) args.cos_sin_cache = dense.cos_sin_cache = table;
    if (c.q_nope_dim > 0) args.q_nope = dense.q_nope = q_nope, args.q_nope_out = dense.q_nope_out = q_nope_out;
    if (c.k_nope_dim > 0) {
      args.k_nope = dense.k_nope = k_nope, dense.k_nope_out = k_nope_out;
      args.k_nope_cache = part(c, k_cache, c.rope_dim, c.k_nope_dim);
    }
    if (c.head_dim_vo > 0) args.v = v, args.v_cache = part(c, v_cache, 0, c.head_dim_vo);
  }
};

// Layouts as models have them and odd ones, for every output.
inline std::vector<RopeAppendCase> rope_append_cases(const std::vector<DType>& dtypes) {
  std::vector<RopeAppendCase> all;
  for (DType t : dtypes)
    for (DType out : {t, DType::kE4M3, DType::kE5M2})
      for (bool interleave : {false, true}) {
        RopeAppendCase c{.dtype = t, .q_out = out, .kv_out = out, .interleave = interleave};
        all.push_back(c);
        c.q_out = t, c.hnd = true, c.table = true, c.ids = DType::kI64;
        all.push_back(c);
        c.num_qo_heads = 5, c.num_kv_heads = 1, c.rope_dim = 6, c.q_nope_dim = 10, c.k_nope_dim = 3, c.head_dim_vo = 7;
        c.padding = 1, c.hnd = false;
        all.push_back(c);
        all.push_back({.dtype = t,  // MLA
                       .q_out = out,
                       .kv_out = out,
                       .num_qo_heads = 3,
                       .num_kv_heads = 1,
                       .rope_dim = 64,
                       .q_nope_dim = 512,
                       .k_nope_dim = 512,
                       .head_dim_vo = 0,
                       .interleave = interleave});
      }
  return all;
}

}  // namespace fulmen::testing
