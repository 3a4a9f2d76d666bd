// SPDX-License-Identifier: Apache-2.0
// Attention of a block of query rows over a range of keys: the unit of work that the attention drivers walk.
//
//   s_mj = scale_log2 * logit(row_m, j, q_m . k_j)     j in kv, visible(row_m) and keep(row_m, j)
//   state[m] = (max_j s_mj, sum_j exp2(s_mj - max))    o[m] = sum_j exp2(s_mj - max) v_j        (not normalised)
//
// so results of different key ranges merge with attention::State::merge. A row that sees no key: (-inf, 0), o = 0.
// Variants with kSoftmax == false use weight(row, j, z) for exp2(..); their state is (0, 1) where the row sees a
// key, and partial results simply add. Sinks are not applied here. All arithmetic is f32, in an order that depends on
// the block's shape only. K and V are read inside the visible range of the block's rows only; nothing else in memory
// has influence.
#pragma once
#include <fulmen/cpu/attention/few_rows.h>
#include <fulmen/cpu/attention/many_rows.h>
#include <fulmen/cpu/attention/query_block.h>

#include <type_traits>

FULMEN_CPU_BEGIN

// Up to this many rows stream K and V as they lie; more rows share packed tiles.
inline constexpr int32_t kFewRows = 8;

// Bytes of scratch (64-byte aligned, one per thread, contents irrelevant) that attend_block needs for blocks of at most
// these sizes.
inline int64_t block_scratch_bytes(int32_t num_rows, int32_t head_dim_qk, int32_t head_dim_vo,
                                   int32_t num_kv_heads = 1) {
  QueryBlock block;
  block.num_rows = num_rows, block.head_dim_qk = head_dim_qk, block.head_dim_vo = head_dim_vo;
  block.num_kv_heads = num_kv_heads;
  Scratch few = {nullptr}, many = {nullptr};
  FewRowsScratch(block, few);
  ManyRowsScratch(block, many);
  return few.used > many.used ? few.used : many.used;
}

template <class T, class Variant, bool kDot>
inline void attend_block_with(const Variant& variant, const QueryBlock& block, const KvRows<T>& k, const KvRows<T>& v,
                              attention::KvRange kv, const KeyRope& rope, Scratch scratch, const BlockOutput& out) {
  if (block.num_rows <= kFewRows) {
    FewRows<T, Variant, kDot>{variant, block, k, v, rope, out, FewRowsScratch(block, scratch)}.run(kv);
    return;
  }
  const ManyRowsScratch pieces(block, scratch);
  for (int32_t h = 0; h < block.num_kv_heads; ++h) {
    const int64_t first = int64_t(h) * block.num_rows;
    QueryBlock one = block;
    one.rows += first, one.q += first * block.q_stride, one.num_kv_heads = 1;
    KvRows<T> k_head = k, v_head = v;
    k_head.base += h * k.stride_head, v_head.base += h * v.stride_head;
    const BlockOutput out_head = {out.state + first, out.o + first * out.o_stride, out.o_stride};
    ManyRows<T, Variant, kDot>{variant, one, k_head, v_head, rope, out_head, pieces}.run(kv);
  }
}

// T: float, f16, bf16, e4m3 or e5m2.
template <class T, class Variant>
inline void attend_block(const Variant& variant, const QueryBlock& block, const KvRows<T>& k, const KvRows<T>& v,
                         attention::KvRange kv, const KeyRope& rope, void* scratch, const BlockOutput& out) {
  const Scratch pieces = {static_cast<char*>(scratch)};
  if constexpr (kHasBf16Dot && std::is_same_v<T, bf16>) {
    if (block.use_bf16_dot && rope.cos == nullptr) {
      return attend_block_with<T, Variant, true>(variant, block, k, v, kv, rope, pieces, out);
    }
  }
  attend_block_with<T, Variant, false>(variant, block, k, v, kv, rope, pieces, out);
}

FULMEN_CPU_END
