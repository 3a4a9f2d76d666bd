// SPDX-License-Identifier: Apache-2.0
// Attention of a few rows (decode): K and V stream from memory once, as they lie in the cache, for all rows together.
//
//   per chunk of kChunk tokens:   S = Q K^T   each key row against kRows query rows, 16 sums reduced by one transposing tree
//                                 P = softmax step of every row
//                                 O += P V    kRows x kVecs registers of O, one pass over the chunk per block of columns
//
// A block may span several kv heads: each chunk is then worked on head by head. Meanwhile the next chunk's rows of the
// same head are prefetched through the page table, one row per step, and into L2 only: rows that lie a power of two apart
// (all tokens of a head in a token-major cache) share so few sets of L1 that they would evict each other there.
#pragma once
#include <fulmen/cpu/attention/query_block.h>
#include <fulmen/cpu/attention/row_load.h>
#include <fulmen/cpu/attention/softmax.h>
#include <fulmen/cpu/simd_bf16_dot.h>
#include <fulmen/cpu/unroll.h>

#include <cstring>
#include <type_traits>

FULMEN_CPU_BEGIN

inline constexpr int32_t kChunk = 32;         // tokens; a multiple of kLanes and of 2
inline constexpr int32_t kMaxRowGroup = kLanes < 8 ? 4 : 8;  // rows that share one pass; fewer are padded to 1, 2 or 4

struct FewRowsScratch {
  float *q, *s, *o, *rotated;
  bf16 *q_bf16, *p_bf16;
  attention::State<float>* state;
  attention::KvRange* ranges;
  FewRowsScratch(const QueryBlock& block, Scratch& scratch) {
    const int32_t width_qk = padded_head_dim(block.head_dim_qk), width_vo = padded_head_dim(block.head_dim_vo);
    const int64_t rows = int64_t(kMaxRowGroup) * block.num_kv_heads;
    q = scratch.take<float>(rows * width_qk);
    q_bf16 = scratch.take<bf16>(rows * width_qk);
    s = scratch.take<float>(kMaxRowGroup * kChunk);
    p_bf16 = scratch.take<bf16>(kMaxRowGroup * kChunk);
    o = scratch.take<float>(rows * width_vo);
    rotated = scratch.take<float>(kChunk * width_qk);
    state = scratch.take<attention::State<float>>(rows);
    ranges = scratch.take<attention::KvRange>(rows);
  }
};

inline void prefetch_row(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetch_l2(static_cast<const char*>(row) + i);
}

// s[r][0..kKeys) = q_r . key_i, at keys[i] + offset, for kKeys = kLanes / kRows keys.
template <bool kDot, int kRows, class Q, class T>
inline void dot_keys(const Q* q, int32_t q_stride, const T* const* keys, int64_t offset, int32_t head_dim, float* s) {
  constexpr int kKeys = kLanes / kRows, kStep = kDot ? 2 * kLanes : kLanes;
  F32 acc[kLanes];
  unroll<kLanes>([&](auto i) __attribute__((always_inline)) { acc[i] = zeros(); });
  const auto step = [&](int32_t at, auto load_key) __attribute__((always_inline)) {
    F32 k[kKeys];
    unroll<kKeys>([&](auto i) __attribute__((always_inline)) { k[i] = load_key(keys[i] + offset + at); });
    unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      const F32 x = load_row<kDot>(q + r * q_stride + at);
      unroll<kKeys>([&](auto i) __attribute__((always_inline)) {
        F32& sum = acc[r * kKeys + i];
        sum = kDot ? dot_pairs(x, k[i], sum) : fma(x, k[i], sum);
      });
    });
  };
  int32_t at = 0;
  for (; at + kStep <= head_dim; at += kStep) {
    step(at, [&](const T* p) __attribute__((always_inline)) { return load_row<kDot>(p); });
  }
  if (at < head_dim) {
    step(at, [&](const T* p) __attribute__((always_inline)) { return load_row_part<kDot>(p, head_dim - at); });
  }
  float sums[kLanes];
  store(sums, reduce_add_each(acc));
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    std::memcpy(s + r * kChunk, sums + r * kKeys, kKeys * sizeof(float));
  });
}

// o[r][0..width) += sum_t p[r][t] values[t][offset + 0..width) for n tokens and width <= kVecs * kLanes. With kDot p holds
// pairs, and where n is odd, values[n] is readable and its weight is 0.
template <bool kDot, int kRows, int kVecs, class T>
inline void add_values(const float* p, int32_t p_stride, const T* const* values, int32_t n, int64_t offset,
                       int32_t width, float* o, int32_t o_stride) {
  F32 acc[kRows][kVecs];
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVecs>([&](auto i) __attribute__((always_inline)) { acc[r][i] = load(o + r * o_stride + i * kLanes); });
  });
  const bool part = width < kVecs * kLanes;  // then kVecs is the least: 2 with kDot, else 1
  for (int32_t t = 0; t < n; t += kDot ? 2 : 1) {
    F32 v[kVecs];
    if constexpr (kDot) {
      unroll<kVecs / 2>([&](auto i) __attribute__((always_inline)) {
        const T *a = values[t] + offset + i * 2 * kLanes, *b = values[t + 1] + offset + i * 2 * kLanes;
        const PairedRows pair = part ? pair_rows(load_row_part<true>(a, width), load_row_part<true>(b, width))
                                     : pair_rows(load_row<true>(a), load_row<true>(b));
        v[2 * i] = pair.low, v[2 * i + 1] = pair.high;
      });
    } else {
      unroll<kVecs>([&](auto i) __attribute__((always_inline)) {
        const T* const x = values[t] + offset + i * kLanes;
        v[i] = kVecs == 1 && part ? load_row_part<false>(x, width) : load_row<false>(x);
      });
    }
    unroll<kRows>([&](auto r) __attribute__((always_inline)) {
      const F32 w = splat(p[r * p_stride + (kDot ? t / 2 : t)]);
      unroll<kVecs>([&](auto i) __attribute__((always_inline)) {
        acc[r][i] = kDot ? dot_pairs(w, v[i], acc[r][i]) : fma(w, v[i], acc[r][i]);
      });
    });
  }
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVecs>([&](auto i) __attribute__((always_inline)) { store(o + r * o_stride + i * kLanes, acc[r][i]); });
  });
}

template <class T, class Variant, bool kDot>
struct FewRows {
  const Variant& variant;
  const QueryBlock& block;
  const KvRows<T>&k, &v;
  const KeyRope& rope;
  const BlockOutput& out;
  FewRowsScratch scratch;

  // K and V rows of the first head; past the chunk's end the last row again, which then has weight 0.
  struct Chunk {
    const T *k[kChunk], *v[kChunk];
    int32_t begin, n;
  };

  void run(attention::KvRange kv) {
    for (int32_t r = 0; r < block.num_rows; r += kMaxRowGroup) {
      const int32_t n = block.num_rows - r < kMaxRowGroup ? block.num_rows - r : kMaxRowGroup;
      if (n == 1) {
        run_group<1>(r, n, kv);
      } else if (n == 2) {
        run_group<2>(r, n, kv);
      } else if (n <= 4) {
        run_group<4>(r, n, kv);
      } else {
        run_group<kMaxRowGroup>(r, n, kv);
      }
    }
  }

  // Rows first .. first + num_rows of every head, kRows at a time.
  template <int kRows>
  void run_group(int32_t first, int32_t num_rows, attention::KvRange kv) {
    const attention::KvRange in = start<kRows>(first, num_rows, kv);
    Chunk chunks[2];
    fill(chunks[0], in.begin, in.end);
    for (int32_t i = 0; i < chunks[0].n; ++i) {
      for (int32_t h = 0; h < block.num_kv_heads; ++h) {
        prefetch_row(chunks[0].k[i] + h * k.stride_head, block.head_dim_qk * sizeof(T));
        prefetch_row(chunks[0].v[i] + h * v.stride_head, block.head_dim_vo * sizeof(T));
      }
    }
    for (int32_t i = 0; chunks[i & 1].n > 0; ++i) {
      Chunk &now = chunks[i & 1], &next = chunks[~i & 1];
      fill(next, now.begin + now.n, in.end);
      for (int32_t h = 0; h < block.num_kv_heads; ++h) {
        score<kRows>(now, next, h);
        for (int32_t r = 0; r < num_rows; ++r) weigh(now, h * block.num_rows + first + r, h * kRows + r, r);
        add<kRows>(now, next, h);
      }
    }
    const int32_t width = padded_head_dim(block.head_dim_vo);
    for (int32_t i = 0; i < block.num_kv_heads * num_rows; ++i) {
      const int32_t h = i / num_rows, to = h * block.num_rows + first + i % num_rows, from = h * kRows + i % num_rows;
      out.state[to] = scratch.state[from];
      std::memcpy(out.o + to * out.o_stride, scratch.o + from * width, size_t(width) * sizeof(float));
    }
  }

  // Queries into scratch, empty states; returns the range of keys that any row sees.
  template <int kRows>
  attention::KvRange start(int32_t first, int32_t num_rows, attention::KvRange kv) {
    const int32_t width = padded_head_dim(block.head_dim_qk), rows = block.num_kv_heads * kRows;
    std::memset(scratch.q, 0, size_t(rows) * width * sizeof(float));
    std::memset(scratch.o, 0, size_t(rows) * padded_head_dim(block.head_dim_vo) * sizeof(float));
    std::memset(scratch.s, 0, sizeof(float) * kRows * kChunk);
    std::memset(scratch.p_bf16, 0, sizeof(bf16) * kRows * kChunk);
    attention::KvRange all = {kv.end, kv.begin};
    for (int32_t h = 0; h < block.num_kv_heads; ++h) {
      const int64_t from = h * block.num_rows + first;
      for (int32_t r = 0; r < num_rows; ++r) {
        std::memcpy(scratch.q + (h * kRows + r) * width, block.q + (from + r) * block.q_stride, width * sizeof(float));
        scratch.state[h * kRows + r] = {};
      }
      const attention::KvRange in =
          visible_ranges(variant, block.rows + from, num_rows, kv, scratch.ranges + h * kRows);
      if (in.begin >= in.end) continue;
      all = {in.begin < all.begin ? in.begin : all.begin, in.end > all.end ? in.end : all.end};
    }
    if constexpr (kDot) narrow_pairs(scratch.q, rows * width, scratch.q_bf16);
    return all.begin < all.end ? all : attention::KvRange{kv.begin, kv.begin};
  }

  void fill(Chunk& chunk, int32_t begin, int32_t end) {
    chunk.begin = begin;
    chunk.n = end - begin < kChunk ? end - begin : kChunk;
    if (chunk.n == 0) return;
    k.rows(begin, chunk.n, chunk.k);
    v.rows(begin, chunk.n, chunk.v);
    for (int32_t i = chunk.n; i < kChunk; ++i) chunk.k[i] = chunk.k[chunk.n - 1], chunk.v[i] = chunk.v[chunk.n - 1];
  }

  template <int kRows>
  void score(const Chunk& now, const Chunk& next, int32_t h) {
    const int32_t width = padded_head_dim(block.head_dim_qk), n = now.n;
    if (rope.cos != nullptr) {
      rotate_keys(rope, now.k, h * k.stride_head, now.begin, n, block.head_dim_qk, scratch.rotated);
      const float* rows[kChunk];
      for (int32_t i = 0; i < kChunk; ++i) rows[i] = scratch.rotated + (i < n ? i : n - 1) * width;
      score_rows<false, kRows>(scratch.q + h * kRows * width, rows, 0, n, next, h);
    } else if constexpr (kDot) {
      score_rows<true, kRows>(scratch.q_bf16 + h * kRows * width, now.k, h * k.stride_head, n, next, h);
    } else {
      score_rows<false, kRows>(scratch.q + h * kRows * width, now.k, h * k.stride_head, n, next, h);
    }
  }

  template <bool kPairs, int kRows, class Q, class K>
  void score_rows(const Q* q, const K* const* keys, int64_t offset, int32_t n, const Chunk& next, int32_t h) {
    constexpr int kKeys = kLanes / kRows;
    for (int32_t t = 0; t < n; t += kKeys) {
      for (int32_t i = t; i < t + kKeys && i < next.n; ++i) {
        prefetch_row(next.k[i] + h * k.stride_head, block.head_dim_qk * sizeof(T));
      }
      dot_keys<kPairs, kRows>(q, padded_head_dim(block.head_dim_qk), keys + t, offset, block.head_dim_qk, scratch.s + t);
    }
  }

  // Row `row` of the block, held in slot `slot` of the scratch, with its scores in line r.
  void weigh(const Chunk& now, int32_t row, int32_t slot, int32_t r) {
    const attention::KvRange in = scratch.ranges[slot];
    const int32_t end = now.begin + now.n;
    const attention::KvRange here = {(in.begin > now.begin ? in.begin : now.begin) - now.begin,
                                     (in.end < end ? in.end : end) - now.begin};
    const int32_t n = (now.n + kLanes - 1) / kLanes * kLanes;
    float* const s = scratch.s + r * kChunk;
    if (here.begin >= here.end) {
      std::memset(s, 0, size_t(n) * sizeof(float));
    } else {
      const float keep = softmax_step(variant, block.rows[row], now.begin, s, n, here, scratch.state[slot]);
      const int32_t width = padded_head_dim(block.head_dim_vo);
      if (keep != 1.f) scale_row(scratch.o + slot * width, width, keep);
    }
    if constexpr (kDot) narrow_pairs(s, n, scratch.p_bf16 + r * kChunk);
  }

  template <int kRows>
  void add(const Chunk& now, const Chunk& next, int32_t h) {
    constexpr int kRegisters = kLanes == 16 ? 16 : 8, kLeast = kDot ? 2 : 1;
    constexpr int kVecs = kRegisters / kRows < kLeast ? kLeast : kRegisters / kRows > 8 ? 8 : kRegisters / kRows;
    const int32_t head_dim = block.head_dim_vo, width = padded_head_dim(head_dim);
    const int64_t offset = h * v.stride_head;
    for (int32_t i = 0; i < next.n; ++i) prefetch_row(next.v[i] + offset, head_dim * sizeof(T));
    const float* const p = kDot ? reinterpret_cast<const float*>(scratch.p_bf16) : scratch.s;
    float* const o = scratch.o + h * kRows * width;
    constexpr int32_t kStride = kDot ? kChunk / 2 : kChunk;
    int32_t column = 0;
    for (; column + kVecs * kLanes <= head_dim; column += kVecs * kLanes) {
      add_values<kDot, kRows, kVecs>(p, kStride, now.v, now.n, offset + column, kVecs * kLanes, o + column, width);
    }
    for (; column < head_dim; column += kLeast * kLanes) {
      const int32_t left = head_dim - column < kLeast * kLanes ? head_dim - column : kLeast * kLanes;
      add_values<kDot, kRows, kLeast>(p, kStride, now.v, now.n, offset + column, left, o + column, width);
    }
  }
};

FULMEN_CPU_END
