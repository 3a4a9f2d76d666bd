// SPDX-License-Identifier: Apache-2.0
// What the caller of attend_block (block.h) hands over, and the small helpers that both of its kernels share.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/attention/variant.h>
#include <fulmen/cpu/attention/kv_rows.h>
#include <fulmen/cpu/simd.h>

FULMEN_CPU_BEGIN

// Rows of q and o are padded to whole multiples of this many floats.
inline constexpr int32_t kHeadPad = 32;
inline constexpr int32_t padded_head_dim(int32_t head_dim) { return (head_dim + kHeadPad - 1) / kHeadPad * kHeadPad; }

// The same rows of num_kv_heads consecutive kv heads: rows, q and the outputs are [num_kv_heads][num_rows]. Spanning
// heads pays where few rows (decode) meet a token-major cache: a token's heads are neighbours in memory and share a TLB
// entry. Within a head: M rows = tokens x heads of one GQA group of one request, in any order in which qo_idx does not
// decrease (token-major: row = token * group_size + head).
struct QueryBlock {
  const float* q = nullptr;              // [num_kv_heads][num_rows][q_stride]; head_dim_qk.. padded_head_dim() hold 0
  const attention::Row* rows = nullptr;  // [num_kv_heads][num_rows]
  int64_t q_stride = 0;                  // floats, >= padded_head_dim(head_dim_qk)
  int32_t num_rows = 0, head_dim_qk = 0, head_dim_vo = 0;
  int32_t num_kv_heads = 1;
  // Multiply bf16 pairs (level avx512_bf16 with bf16 K and V; ignored elsewhere): q must hold bf16 values, and the
  // weights are rounded to bf16. Faster where vdpbf16ps runs at full rate (AMD Zen 4), slower elsewhere.
  bool use_bf16_dot = false;
};

// Rotates K by its position t on the fly, half-split: with h = rotary_dim / 2 and i < h,
//   k'[i] = k[i] cos[t][i] - k[i+h] sin[t][i],   k'[i+h] = k[i+h] cos[t][i] + k[i] sin[t][i];   the rest is unchanged.
struct KeyRope {
  const float* cos = nullptr;  // [kv_len][rotary_dim / 2]; null: K is used as it is
  const float* sin = nullptr;
  int32_t rotary_dim = 0;  // even, <= head_dim_qk
};

struct BlockOutput {
  attention::State<float>* state = nullptr;  // [num_kv_heads][num_rows], m in log2 units
  float* o = nullptr;    // [num_kv_heads][num_rows][o_stride]; columns head_dim_vo.. padded_head_dim() get 0
  int64_t o_stride = 0;  // floats, >= padded_head_dim(head_dim_vo)
};

// Hands out 64-byte aligned pieces of the caller's scratch; with base == null it only counts bytes.
struct Scratch {
  char* base;
  int64_t used = 0;
  template <class T>
  T* take(int64_t n) {
    char* const piece = base + used;
    used += (n * int64_t(sizeof(T)) + 63) / 64 * 64;
    return base == nullptr ? nullptr : reinterpret_cast<T*>(piece);
  }
};

// The keys of kv that each row sees; returns the smallest range around all of them (empty: begin == end).
template <class Variant>
inline attention::KvRange visible_ranges(const Variant& variant, const attention::Row* rows, int32_t n,
                                         attention::KvRange kv, attention::KvRange* ranges) {
  attention::KvRange all = {kv.end, kv.begin};
  for (int32_t r = 0; r < n; ++r) {
    const attention::KvRange in = variant.visible(rows[r]);
    const int32_t begin = in.begin > kv.begin ? in.begin : kv.begin, end = in.end < kv.end ? in.end : kv.end;
    ranges[r] = begin < end ? attention::KvRange{begin, end} : attention::KvRange{kv.begin, kv.begin};
    if (begin >= end) continue;
    all = {begin < all.begin ? begin : all.begin, end > all.end ? end : all.end};
  }
  return all.begin < all.end ? all : attention::KvRange{kv.begin, kv.begin};
}

// Rows keys[0..n) + offset of K, at positions begin .. begin + n, widened and rotated, to
// out[n][padded_head_dim(head_dim)].
template <class T>
inline void rotate_keys(const KeyRope& rope, const T* const* keys, int64_t offset, int64_t begin, int32_t n,
                        int32_t head_dim, float* out) {
  const int32_t half = rope.rotary_dim / 2;
  for (int32_t t = 0; t < n; ++t, out += padded_head_dim(head_dim)) {
    for (int32_t i = 0; i < head_dim; ++i) out[i] = to_f32(keys[t][offset + i]);
    const float *cos = rope.cos + (begin + t) * half, *sin = rope.sin + (begin + t) * half;
    for (int32_t i = 0; i < half; ++i) {
      const float x = out[i], y = out[i + half];
      out[i] = x * cos[i] - y * sin[i];
      out[i + half] = y * cos[i] + x * sin[i];
    }
  }
}

FULMEN_CPU_END
