// SPDX-License-Identifier: Apache-2.0
// What the tables of an attention call say, read as they are documented: part of reference/attention.h.
#pragma once
#include <fulmen/ops/attention.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference::detail {

inline int64_t id(const TensorView& t, int64_t i) { return int64_t(element(t, i)); }

struct Problem {
  const AttentionArgs& a;
  bool paged, hnd, single_row;
  int64_t batch_size, num_qo_heads, num_kv_heads, d_qk, d_vo, total_q, page_size;

  explicit Problem(const AttentionArgs& args) : a(args) {
    paged = a.k.rank == 4;
    hnd = a.options.kv_layout == KvLayout::kHND;
    single_row = a.q.rank == 2;
    d_qk = a.k.shape[a.k.rank - 1];
    d_vo = a.v.shape[a.v.rank - 1];
    num_kv_heads = a.k.shape[a.k.rank - (hnd ? 3 : 2)];
    num_qo_heads = a.q.shape[single_row ? 0 : 1];
    total_q = single_row ? 1 : a.q.shape[0];
    page_size = paged ? a.k.shape[hnd ? 2 : 1] : 1;
    batch_size = a.block_tables.defined() ? a.block_tables.shape[0]
                 : a.kv_indptr.defined()  ? a.kv_indptr.shape[0] - 1
                                          : 1;
  }
  int64_t qo_begin(int64_t b) const { return a.qo_indptr.defined() ? id(a.qo_indptr, b) : b * (total_q / batch_size); }
  int64_t qo_len(int64_t b) const {
    return a.qo_indptr.defined() ? id(a.qo_indptr, b + 1) - id(a.qo_indptr, b) : total_q / batch_size;
  }
  int64_t kv_len(int64_t b) const {
    if (a.seq_lens.defined()) return id(a.seq_lens, b);
    if (!a.kv_indptr.defined()) return a.k.shape[hnd ? 1 : 0];
    const int64_t count = id(a.kv_indptr, b + 1) - id(a.kv_indptr, b);
    return !paged || count == 0 ? count : (count - 1) * page_size + id(a.last_page_len, b);
  }
  // Element c of token t's key or value.
  double kv(const TensorView& x, int64_t b, int64_t t, int64_t head, int64_t c) const {
    const int64_t heads = num_kv_heads, dim = x.shape[x.rank - 1];
    if (!paged) {
      const int64_t token = (a.kv_indptr.defined() ? id(a.kv_indptr, b) : 0) + t;
      return element(x, (hnd ? head * x.shape[1] + token : token * heads + head) * dim + c);
    }
    const int64_t page = a.block_tables.defined() ? id(a.block_tables, b * a.block_tables.shape[1] + t / page_size)
                                                  : id(a.kv_indices, id(a.kv_indptr, b) + t / page_size);
    const int64_t slot = t % page_size;
    return element(
        x, ((hnd ? page * heads + head : page * page_size + slot) * (hnd ? page_size : heads) + (hnd ? slot : head)) *
                   dim +
               c);
  }
};

}  // namespace fulmen::reference::detail
