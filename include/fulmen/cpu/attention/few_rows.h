// SPDX-License-Identifier: Apache-2.0
// Attention of a few rows (decode): K and V stream from memory once, as they lie in the cache, for all rows together.
//
//   per chunk of kChunk tokens:
//     S = Q K^T    each key row against kRows query rows; kLanes sums are reduced by one transposing tree
//     P            softmax step: of all rows at once, or row by row where a mask or transform asks
//     O += P V     kRows x kVecs registers of O, one pass over the chunk per block of columns
//
// S and P are held as they come out of the tree: register t / kKeys, lane r * kKeys + t % kKeys, with kKeys = kLanes /
// kRows; maxima and sums of the softmax are held in the same lanes.
//
// A block may span several kv heads: each chunk is then worked on head by head. Meanwhile the next chunk's rows are
// prefetched through the page table, a row per step, in the order in which they lie in memory (a token's heads together
// in a token-major cache), and into L2 only: rows that lie a power of two apart (all tokens of a head in a token-major
// cache) share so few sets of L1 that they would evict each other there.
#pragma once
#include <fulmen/cpu/attention/query_block.h>
#include <fulmen/cpu/attention/row_load.h>
#include <fulmen/cpu/attention/row_prefetch.h>
#include <fulmen/cpu/attention/softmax.h>
#include <fulmen/cpu/simd_bf16_dot.h>
#include <fulmen/cpu/unroll.h>

#include <cstdlib>
#include <cstring>
#include <type_traits>

FULMEN_CPU_BEGIN

inline constexpr int32_t kChunk = 64;                        // tokens; a multiple of kLanes and of 2
inline constexpr int32_t kMaxRowGroup = kLanes < 8 ? 4 : 8;  // rows that share one pass; fewer are padded to 1, 2 or 4

struct FewRowsScratch {
  float *q, *s, *o, *rotated;
  float *m, *d;  // [num_kv_heads][kLanes]: the state of row r in lanes r * kKeys ..; d is the sum of the row's lanes
  bf16 *q_bf16, *p_bf16;
  attention::KvRange* ranges;
  FewRowsScratch(const QueryBlock& block, Scratch& scratch) {
    const int32_t width_qk = padded_head_dim(block.head_dim_qk), width_vo = padded_head_dim(block.head_dim_vo);
    const int64_t rows = int64_t(kMaxRowGroup) * block.num_kv_heads;
    q = scratch.take<float>(rows * width_qk);
    q_bf16 = scratch.take<bf16>(rows * width_qk);
    s = scratch.take<float>(kMaxRowGroup * kChunk + kLanes);
    p_bf16 = scratch.take<bf16>(kMaxRowGroup * kChunk + 2 * kLanes);
    o = scratch.take<float>(rows * width_vo);
    rotated = scratch.take<float>(kChunk * width_qk);
    m = scratch.take<float>(kLanes * block.num_kv_heads);
    d = scratch.take<float>(kLanes * block.num_kv_heads);
    ranges = scratch.take<attention::KvRange>(rows);
  }
};

// s[r * kKeys + i] = q_r . key_i, at keys[i] + offset, for kKeys = kLanes / kRows keys. consumed(bytes) is told of what
// has been read, as the work goes on.
template <bool kDot, int kRows, class Q, class T, class Consumed>
inline void dot_keys(const Q* q, int32_t q_stride, const T* const* keys, int64_t offset, int32_t head_dim, float* s,
                     Consumed consumed) {
  constexpr int kKeys = kLanes / kRows, kStep = kDot ? 2 * kLanes : kLanes;
  F32 acc[kLanes];
  unroll<kLanes>([&](auto i) __attribute__((always_inline)) { acc[i] = zeros(); });
  const auto step = [&](int32_t at, auto load_key) __attribute__((always_inline)) {
    consumed(kKeys * kStep * int64_t(sizeof(T)));
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
    step(
        at, [&](const T* p) __attribute__((always_inline)) { return load_row<kDot>(p); });
  }
  if (at < head_dim) {
    step(
        at, [&](const T* p) __attribute__((always_inline)) { return load_row_part<kDot>(p, head_dim - at); });
  }
  store(s, reduce_add_each(acc));
}

// o[r][0..width) += sum_t p_rt values[t][offset + 0..width) for n tokens and width <= kVecs * kLanes. With kDot p holds
// pairs of bf16, and where n is odd, values[n] is readable and its weight is 0. consumed(bytes) as above.
template <bool kDot, int kRows, int kVecs, class T, class Consumed>
inline void add_values(const float* p, const T* const* values, int32_t n, int64_t offset, int32_t width, float* o,
                       int32_t o_stride, Consumed consumed) {
  constexpr int32_t kKeys = kLanes / kRows, kUnit = kDot ? 2 : 1;
  F32 acc[kRows][kVecs];
  unroll<kRows>([&](auto r) __attribute__((always_inline)) {
    unroll<kVecs>([&](auto i) __attribute__((always_inline)) { acc[r][i] = load(o + r * o_stride + i * kLanes); });
  });
  const bool part = width < kVecs * kLanes;  // then kVecs is the least: 2 with kDot, else 1
  for (int32_t t = 0; t < n; t += kUnit) {
    consumed(kUnit * kVecs * kLanes * int64_t(sizeof(T)));
    const float* const weights = p + (t / kKeys * kLanes + t % kKeys) / kUnit;
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
      const F32 w = splat(weights[r * kKeys / kUnit]);
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
    Ahead first_rows = ahead_of(chunks[0]);
    first_rows.k.all();
    first_rows.v.all();
    for (int32_t i = 0; chunks[i & 1].n > 0; ++i) {
      Chunk &now = chunks[i & 1], &next = chunks[~i & 1];
      fill(next, now.begin + now.n, in.end);
      Ahead ahead = ahead_of(next);
      for (int32_t h = 0; h < block.num_kv_heads; ++h) {
        score<kRows>(now, ahead, h);
        weigh<kRows>(now, first, num_rows, h);
        add<kRows>(now, ahead, h);
      }
    }
    const int32_t width = padded_head_dim(block.head_dim_vo);
    for (int32_t i = 0; i < block.num_kv_heads * num_rows; ++i) {
      const int32_t h = i / num_rows, r = i % num_rows, to = h * block.num_rows + first + r;
      out.state[to] = state_of<kRows>(h, r);
      std::memcpy(out.o + to * out.o_stride, scratch.o + (h * kRows + r) * width, size_t(width) * sizeof(float));
    }
  }

  // Queries into scratch, empty states; returns the range of keys that any row sees.
  template <int kRows>
  attention::KvRange start(int32_t first, int32_t num_rows, attention::KvRange kv) {
    const int32_t width = padded_head_dim(block.head_dim_qk), rows = block.num_kv_heads * kRows;
    std::memset(scratch.q, 0, size_t(rows) * width * sizeof(float));
    std::memset(scratch.o, 0, size_t(rows) * padded_head_dim(block.head_dim_vo) * sizeof(float));
    attention::KvRange all = {kv.end, kv.begin};
    for (int32_t h = 0; h < block.num_kv_heads; ++h) {
      const int64_t from = h * block.num_rows + first;
      for (int32_t r = 0; r < num_rows; ++r) {
        std::memcpy(scratch.q + (h * kRows + r) * width, block.q + (from + r) * block.q_stride, width * sizeof(float));
      }
      store(scratch.m + h * kLanes, splat(kMinusInf));
      store(scratch.d + h * kLanes, zeros());
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

  struct Ahead {
    RowPrefetch<T> k, v;
  };
  Ahead ahead_of(const Chunk& c) const {
    const auto rows = [&](const T* const* tokens, const KvRows<T>& all, int32_t head_dim) {
      const bool token_major = c.n > 1 && std::abs(all.stride_head) < std::abs(tokens[1] - tokens[0]);
      return RowPrefetch<T>(tokens, c.n, block.num_kv_heads, all.stride_head, head_dim, token_major);
    };
    return {rows(c.k, k, block.head_dim_qk), rows(c.v, v, block.head_dim_vo)};
  }

  template <int kRows>
  void score(const Chunk& now, Ahead& ahead, int32_t h) {
    const int32_t width = padded_head_dim(block.head_dim_qk), n = now.n;
    if (rope.cos != nullptr) {
      rotate_keys(rope, now.k, h * k.stride_head, now.begin, n, block.head_dim_qk, scratch.rotated);
      const float* rows[kChunk];
      for (int32_t i = 0; i < kChunk; ++i) rows[i] = scratch.rotated + (i < n ? i : n - 1) * width;
      score_rows<false, kRows>(scratch.q + h * kRows * width, rows, 0, n, ahead);
    } else if constexpr (kDot) {
      score_rows<true, kRows>(scratch.q_bf16 + h * kRows * width, now.k, h * k.stride_head, n, ahead);
    } else {
      score_rows<false, kRows>(scratch.q + h * kRows * width, now.k, h * k.stride_head, n, ahead);
    }
  }

  template <bool kPairs, int kRows, class Q, class K>
  void score_rows(const Q* q, const K* const* keys, int64_t offset, int32_t n, Ahead& ahead) {
    constexpr int kKeys = kLanes / kRows;
    for (int32_t t = 0; t < n; t += kKeys) {
      dot_keys<kPairs, kRows>(q, padded_head_dim(block.head_dim_qk), keys + t, offset, block.head_dim_qk,
                              scratch.s + t * kRows, [&](int64_t bytes) { ahead.k.follow(bytes); });
    }
  }

  template <int kRows>
  void weigh(const Chunk& now, int32_t first, int32_t num_rows, int32_t h) {
    const int32_t end = now.begin + now.n;
    bool mixed = now.n < kChunk || variant.has_mask() || variant.changes_logits() || !Variant::kSoftmax;
    for (int32_t r = 0; r < num_rows; ++r) {
      const attention::KvRange in = scratch.ranges[h * kRows + r];
      mixed = mixed || in.begin > now.begin || in.end < end;
    }
    if (mixed) {
      for (int32_t r = 0; r < num_rows; ++r) weigh_row<kRows>(now, h * block.num_rows + first + r, h, r);
    } else if constexpr (Variant::kSoftmax) {
      weigh_all<kRows>(h);
    }
    if constexpr (kDot) narrow_pairs(scratch.s, kChunk * kRows, scratch.p_bf16);
  }

  // The softmax step of all rows where every row sees the whole chunk.
  template <int kRows>
  void weigh_all(int32_t h) {
    constexpr int32_t kKeys = kLanes / kRows, n = kChunk * kRows;
    const F32 scale = splat(variant.scale_log2());
    F32 top = splat(-0x1.fffffep127f);  // finite, so that -inf - m is never -inf + inf
    for (int32_t j = 0; j < n; j += kLanes) top = max(load(scratch.s + j) * scale, top);
    if constexpr (kKeys > 8) top = max(top, swap_lanes<8>(top));
    if constexpr (kKeys > 4) top = max(top, swap_lanes<4>(top));
    if constexpr (kKeys > 2) top = max(top, swap_lanes<2>(top));
    if constexpr (kKeys > 1) top = max(top, swap_lanes<1>(top));
    const F32 before = load(scratch.m + h * kLanes), m = max(before, top), minus_m = zeros() - m;
    F32 sum = load(scratch.d + h * kLanes);
    if (bits_from_mask(before < m) != 0) {
      const F32 keep = exp2(before - m);
      sum = sum * keep;
      store(scratch.m + h * kLanes, m);
      float factors[kLanes];
      store(factors, keep);
      const int32_t width = padded_head_dim(block.head_dim_vo);
      for (int32_t r = 0; r < kRows; ++r) scale_row(scratch.o + (h * kRows + r) * width, width, factors[r * kKeys]);
    }
    for (int32_t j = 0; j < n; j += kLanes) {
      const F32 w = exp2(fma(load(scratch.s + j), scale, minus_m));
      store(scratch.s + j, w);
      sum = sum + w;
    }
    store(scratch.d + h * kLanes, sum);
  }

  // The softmax step of row r of head h, which is row `row` of the block: its scores are brought together and back.
  template <int kRows>
  void weigh_row(const Chunk& now, int32_t row, int32_t h, int32_t r) {
    constexpr int32_t kKeys = kLanes / kRows;
    const attention::KvRange in = scratch.ranges[h * kRows + r];
    const int32_t end = now.begin + now.n;
    const attention::KvRange here = {(in.begin > now.begin ? in.begin : now.begin) - now.begin,
                                     (in.end < end ? in.end : end) - now.begin};
    float line[kChunk] = {};
    if (here.begin < here.end) {
      for (int32_t t = 0; t < now.n; ++t) line[t] = scratch.s[t / kKeys * kLanes + r * kKeys + t % kKeys];
      attention::State<float> state = state_of<kRows>(h, r);
      const float keep = softmax_step(variant, block.rows[row], now.begin, line, kChunk, here, state);
      const int32_t width = padded_head_dim(block.head_dim_vo);
      if (keep != 1.f) scale_row(scratch.o + (h * kRows + r) * width, width, keep);
      for (int32_t i = 0; i < kKeys; ++i) {
        scratch.m[h * kLanes + r * kKeys + i] = state.m;
        scratch.d[h * kLanes + r * kKeys + i] = i == 0 ? state.d : 0.f;
      }
    }
    for (int32_t t = 0; t < kChunk; ++t) scratch.s[t / kKeys * kLanes + r * kKeys + t % kKeys] = line[t];
  }

  template <int kRows>
  attention::State<float> state_of(int32_t h, int32_t r) const {
    constexpr int32_t kKeys = kLanes / kRows;
    const float *m = scratch.m + h * kLanes + r * kKeys, *d = scratch.d + h * kLanes + r * kKeys;
    float sum = 0;
    for (int32_t i = 0; i < kKeys; ++i) sum += d[i];
    return sum == 0 ? attention::State<float>{} : attention::State<float>{*m, sum};
  }

  template <int kRows>
  void add(const Chunk& now, Ahead& ahead, int32_t h) {
    constexpr int kRegisters = kLanes == 16 ? 16 : 8, kLeast = kDot ? 2 : 1;
    constexpr int kVecs = kRegisters / kRows < kLeast ? kLeast : kRegisters / kRows > 8 ? 8 : kRegisters / kRows;
    const int32_t head_dim = block.head_dim_vo, width = padded_head_dim(head_dim);
    const int64_t offset = h * v.stride_head;
    const float* const p = kDot ? reinterpret_cast<const float*>(scratch.p_bf16) : scratch.s;
    float* const o = scratch.o + h * kRows * width;
    int32_t column = 0;
    const auto consumed = [&](int64_t bytes) { ahead.v.follow(bytes); };
    for (; column + kVecs * kLanes <= head_dim; column += kVecs * kLanes) {
      add_values<kDot, kRows, kVecs>(p, now.v, now.n, offset + column, kVecs * kLanes, o + column, width, consumed);
    }
    for (; column < head_dim; column += kLeast * kLanes) {
      const int32_t left = head_dim - column < kLeast * kLanes ? head_dim - column : kLeast * kLanes;
      add_values<kDot, kRows, kLeast>(p, now.v, now.n, offset + column, left, o + column, width, consumed);
    }
  }
};

FULMEN_CPU_END
