// SPDX-License-Identifier: Apache-2.0
// Attention of a block of query rows over a range of keys: the unit of work that the attention drivers walk.
//
//   s_mj = scale_log2 * logit(row_m, j, q_m . k_j)     j in kv, visible(row_m) and keep(row_m, j)
//   state[m] = (max_j s_mj, sum_j exp2(s_mj - max))    o[m] = sum_j exp2(s_mj - max) v_j        (not normalised)
//
// so results of different key ranges merge with attention::State::merge. A row that sees no key gets (-inf, 0) and o = 0.
// Variants with kSoftmax == false use weight(row, j, z) for exp2(..); their state is (0, 1) where the row sees a key, and
// partial results simply add. Sinks are not applied here. All arithmetic is f32, in an order that depends on the block's
// shape only. K and V are read inside the visible range of the block's rows only; nothing else in memory has influence.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/attention/tile_mask.h>
#include <fulmen/attention/variant.h>
#include <fulmen/cpu/attention/kv_rows.h>
#include <fulmen/cpu/simd.h>

FULMEN_CPU_BEGIN

// Rows of q and o are padded to whole multiples of this many floats.
inline constexpr int32_t kHeadPad = 32;
inline constexpr int32_t padded_head_dim(int32_t head_dim) { return (head_dim + kHeadPad - 1) / kHeadPad * kHeadPad; }

// M rows = tokens x heads of one GQA group of one request, in any order in which qo_idx does not decrease (token-major:
// row = token * group_size + head).
struct QueryBlock {
  const float* q = nullptr;                // [num_rows][q_stride]; columns head_dim_qk.. padded_head_dim() hold 0
  const attention::Row* rows = nullptr;    // [num_rows]
  int64_t q_stride = 0;                    // floats, >= padded_head_dim(head_dim_qk)
  int32_t num_rows = 0, head_dim_qk = 0, head_dim_vo = 0;
  // Multiply bf16 pairs (level avx512_bf16 with bf16 K and V; ignored elsewhere): q must hold bf16 values, and the weights
  // are rounded to bf16. Faster where vdpbf16ps runs at full rate (AMD Zen 4), slower elsewhere.
  bool use_bf16_dot = false;
};

// Rotates K by its position t on the fly, half-split: with h = rotary_dim / 2 and i < h,
//   k'[i] = k[i] cos[t][i] - k[i+h] sin[t][i],   k'[i+h] = k[i+h] cos[t][i] + k[i] sin[t][i];   the rest is unchanged.
struct KeyRope {
  const float* cos = nullptr;  // [kv_len][rotary_dim / 2]; null: K is used as it is
  const float* sin = nullptr;
  int32_t rotary_dim = 0;      // even, <= head_dim_qk
};

struct BlockOutput {
  attention::State<float>* state = nullptr;  // [num_rows], m in log2 units
  float* o = nullptr;                        // [num_rows][o_stride]; columns head_dim_vo.. padded_head_dim() get 0
  int64_t o_stride = 0;                      // floats, >= padded_head_dim(head_dim_vo)
};

// Bytes of scratch (64-byte aligned, one per thread, contents irrelevant) that attend_block needs for up to num_rows rows.
inline int64_t block_scratch_bytes(int32_t num_rows, int32_t head_dim_qk, int32_t head_dim_vo);

// T: float, f16, bf16, e4m3 or e5m2.
template <class T, class Variant>
void attend_block(const Variant& variant, const QueryBlock& block, const KvRows<T>& k, const KvRows<T>& v,
                  attention::KvRange kv, const KeyRope& rope, void* scratch, const BlockOutput& out);

FULMEN_CPU_END
