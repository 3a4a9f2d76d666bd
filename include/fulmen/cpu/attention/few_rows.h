// SPDX-License-Identifier: Apache-2.0
// Attention of a few rows (decode): K and V stream from memory once, as they lie in the cache, for all rows together.
//
//   per chunk of kChunk tokens:   S = Q K^T   each key row against kRows query rows, 16 sums reduced by one transposing tree
//                                 P = softmax step of every row
//                                 O += P V    kRows x kVecs registers of O, one pass over the chunk per block of columns
//
// While a chunk is worked on, the next chunk's rows are prefetched through the page table, one row per step.
#pragma once
#include <fulmen/cpu/attention/query_block.h>
#include <fulmen/cpu/attention/row_load.h>
#include <fulmen/cpu/attention/softmax.h>
#include <fulmen/cpu/simd_bf16_dot.h>
#include <fulmen/cpu/unroll.h>

#include <cstring>
#include <type_traits>

FULMEN_CPU_BEGIN

inline constexpr int32_t kChunk = 64;         // tokens; a multiple of kLanes and of 2
inline constexpr int32_t kMaxRowGroup = kLanes < 8 ? 4 : 8;  // rows that share one pass; fewer are padded to 1, 2 or 4

struct FewRowsScratch {
  float *zero_row, *q, *s, *o, *rotated;
  bf16 *q_bf16, *p_bf16;
  attention::KvRange* ranges;
  FewRowsScratch(const QueryBlock& block, Scratch& scratch) {
    const int32_t width_qk = padded_head_dim(block.head_dim_qk), width_vo = padded_head_dim(block.head_dim_vo);
    zero_row = scratch.take<float>(width_qk > width_vo ? width_qk : width_vo);
    q = scratch.take<float>(kMaxRowGroup * width_qk);
    q_bf16 = scratch.take<bf16>(kMaxRowGroup * width_qk);
    s = scratch.take<float>(kMaxRowGroup * kChunk);
    p_bf16 = scratch.take<bf16>(kMaxRowGroup * kChunk);
    o = scratch.take<float>(kMaxRowGroup * width_vo);
    rotated = scratch.take<float>(kChunk * width_qk);
    ranges = scratch.take<attention::KvRange>(kMaxRowGroup);
  }
};

inline void prefetch_row(const void* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetch(static_cast<const char*>(row) + i);
}

// s[r][0..kKeys) = q_r . key_i for kKeys = kLanes / kRows keys.
template <bool kDot, int kRows, class Q, class T>
inline void dot_keys(const Q* q, int32_t q_stride, const T* const* keys, int32_t head_dim, float* s) {
  constexpr int kKeys = kLanes / kRows, kStep = kDot ? 2 * kLanes : kLanes;
  F32 acc[kLanes];
  unroll<kLanes>([&](auto i) __attribute__((always_inline)) { acc[i] = zeros(); });
  const auto step = [&](int32_t at, auto load_key) __attribute__((always_inline)) {
    F32 k[kKeys];
    unroll<kKeys>([&](auto i) __attribute__((always_inline)) { k[i] = load_key(keys[i] + at); });
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

// o[r][0..width) += sum_t p[r][t] v_t[column + 0..width) for n tokens and width <= kVecs * kLanes; with kDot p holds pairs.
template <bool kDot, int kRows, int kVecs, class T>
inline void add_values(const float* p, int32_t p_stride, const T* const* values, int32_t n, int32_t column,
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
        const T *a = values[t] + column + i * 2 * kLanes, *b = values[t + 1] + column + i * 2 * kLanes;
        const PairedRows pair = part ? pair_rows(load_row_part<true>(a, width), load_row_part<true>(b, width))
                                     : pair_rows(load_row<true>(a), load_row<true>(b));
        v[2 * i] = pair.low, v[2 * i + 1] = pair.high;
      });
    } else {
      unroll<kVecs>([&](auto i) __attribute__((always_inline)) {
        const T* const x = values[t] + column + i * kLanes;
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

  // A chunk's K and V rows; past its end, rows of zeros.
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

  template <int kRows>
  void run_group(int32_t first, int32_t num_rows, attention::KvRange kv) {
    QueryBlock group = block;
    group.rows += first, group.num_rows = num_rows;
    const attention::KvRange in = visible_ranges(variant, group, kv, scratch.ranges);
    const int32_t width_qk = padded_head_dim(block.head_dim_qk), width_vo = padded_head_dim(block.head_dim_vo);
    std::memset(scratch.zero_row, 0, size_t(width_qk > width_vo ? width_qk : width_vo) * sizeof(float));
    std::memset(scratch.o, 0, size_t(kRows) * width_vo * sizeof(float));
    std::memset(scratch.s, 0, sizeof(float) * kRows * kChunk);
    attention::State<float> state[kRows];
    load_queries<kRows>(first, num_rows);

    Chunk chunks[2];
    fill(chunks[0], in.begin, in.end);
    for (int32_t i = 0; i < chunks[0].n; ++i) prefetch_row(chunks[0].v[i], block.head_dim_vo * sizeof(T));
    for (int32_t i = 0; chunks[i & 1].n > 0; ++i) {
      Chunk &now = chunks[i & 1], &next = chunks[~i & 1];
      fill(next, now.begin + now.n, in.end);
      score<kRows>(now, next);
      for (int32_t r = 0; r < num_rows; ++r) weigh(now, first, r, state[r]);
      add<kRows>(now, next);
    }
    for (int32_t r = 0; r < num_rows; ++r) {
      out.state[first + r] = state[r];
      std::memcpy(out.o + (first + r) * out.o_stride, scratch.o + r * width_vo, size_t(width_vo) * sizeof(float));
    }
  }

  template <int kRows>
  void load_queries(int32_t first, int32_t num_rows) {
    const int32_t width = padded_head_dim(block.head_dim_qk);
    std::memset(scratch.q, 0, size_t(kRows) * width * sizeof(float));
    for (int32_t r = 0; r < num_rows; ++r) {
      std::memcpy(scratch.q + r * width, block.q + (first + r) * block.q_stride, size_t(width) * sizeof(float));
    }
    if constexpr (kDot) {
      for (int32_t i = 0; i < kRows * width; i += kLanes) store(scratch.q_bf16 + i, load(scratch.q + i));
    }
  }

  void fill(Chunk& chunk, int32_t begin, int32_t end) {
    chunk.begin = begin;
    chunk.n = end - begin < kChunk ? end - begin : kChunk;
    k.rows(begin, chunk.n, chunk.k);
    v.rows(begin, chunk.n, chunk.v);
    for (int32_t i = chunk.n; i < kChunk; ++i) {
      chunk.k[i] = chunk.v[i] = reinterpret_cast<const T*>(scratch.zero_row);
    }
  }

  template <int kRows>
  void score(const Chunk& now, const Chunk& next) {
    const int32_t width = padded_head_dim(block.head_dim_qk), n = now.n;
    if (rope.cos != nullptr) {
      rotate_keys(rope, now.k, now.begin, n, block.head_dim_qk, scratch.rotated);
      const float* rows[kChunk];
      for (int32_t i = 0; i < kChunk; ++i) rows[i] = i < n ? scratch.rotated + i * width : scratch.zero_row;
      score_rows<false, kRows>(scratch.q, rows, n, next);
    } else if constexpr (kDot) {
      score_rows<true, kRows>(scratch.q_bf16, now.k, n, next);
    } else {
      score_rows<false, kRows>(scratch.q, now.k, n, next);
    }
  }

  template <bool kPairs, int kRows, class Q, class K>
  void score_rows(const Q* q, const K* const* keys, int32_t n, const Chunk& next) {
    constexpr int kKeys = kLanes / kRows;
    const int32_t width = padded_head_dim(block.head_dim_qk);
    for (int32_t t = 0; t < n; t += kKeys) {
      for (int32_t i = t; i < t + kKeys; ++i) prefetch_row(next.k[i], block.head_dim_qk * sizeof(T));
      dot_keys<kPairs, kRows>(q, width, keys + t, block.head_dim_qk, scratch.s + t);
    }
  }

  void weigh(const Chunk& now, int32_t first, int32_t r, attention::State<float>& state) {
    const attention::KvRange in = scratch.ranges[r];
    const int32_t end = now.begin + now.n;
    const attention::KvRange here = {(in.begin > now.begin ? in.begin : now.begin) - now.begin,
                                     (in.end < end ? in.end : end) - now.begin};
    const int32_t n = (now.n + kLanes - 1) / kLanes * kLanes;
    float* const s = scratch.s + r * kChunk;
    if (here.begin >= here.end) {
      std::memset(s, 0, size_t(n) * sizeof(float));
    } else {
      const float keep = softmax_step(variant, block.rows[first + r], now.begin, s, n, here, state);
      const int32_t width = padded_head_dim(block.head_dim_vo);
      if (keep != 1.f) scale_row(scratch.o + r * width, width, keep);
    }
    if constexpr (kDot) narrow_weights(s, n, scratch.p_bf16 + r * kChunk);
  }

  template <int kRows>
  void add(const Chunk& now, const Chunk& next) {
    constexpr int kRegisters = kLanes == 16 ? 16 : 8, kLeast = kDot ? 2 : 1;
    constexpr int kVecs = kRegisters / kRows < kLeast ? kLeast : kRegisters / kRows > 8 ? 8 : kRegisters / kRows;
    const int32_t head_dim = block.head_dim_vo, width = padded_head_dim(head_dim);
    for (int32_t i = 0; i < next.n; ++i) prefetch_row(next.v[i], head_dim * sizeof(T));
    const float* const p = kDot ? reinterpret_cast<const float*>(scratch.p_bf16) : scratch.s;
    constexpr int32_t kStride = kDot ? kChunk / 2 : kChunk;
    int32_t column = 0;
    for (; column + kVecs * kLanes <= head_dim; column += kVecs * kLanes) {
      add_values<kDot, kRows, kVecs>(p, kStride, now.v, now.n, column, kVecs * kLanes, scratch.o + column, width);
    }
    for (; column < head_dim; column += kLeast * kLanes) {
      const int32_t left = head_dim - column < kLeast * kLanes ? head_dim - column : kLeast * kLanes;
      add_values<kDot, kRows, kLeast>(p, kStride, now.v, now.n, column, left, scratch.o + column, width);
    }
  }
};

FULMEN_CPU_END
