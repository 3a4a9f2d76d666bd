// SPDX-License-Identifier: Apache-2.0
// Reading a row of the vocabulary once: its largest value, the largest of every chunk, and whether it holds NaN. The
// chunks' largest values bound any threshold from below, so later steps look only into the few chunks that reach it.
#pragma once
#include <fulmen/cpu/for_dtype.h>
#include <fulmen/cpu/token_lanes.h>

#include <memory>
#include <type_traits>
#include <utility>

FULMEN_CPU_BEGIN

inline constexpr int64_t kChunk = 128;  // elements
inline constexpr int64_t kSlack = 64;   // elements after an array that full registers may touch

// Some tokens of a row, in index order: values, weights and where they stand in the row.
struct TokenList {
  float* x = nullptr;
  float* w = nullptr;
  int32_t* idx = nullptr;
  int64_t n = 0;
};

// What a thread needs for one row. Grows to the longest row seen and stays with the thread, so that a call in steady
// state allocates nothing; pages that no row reached are never touched.
struct RowScratch {
  std::unique_ptr<float[]> memory;
  std::unique_ptr<double[]> sums;  // per block
  int64_t len = 0;
  float* row = nullptr;        // the row in f32 where the input is not
  float* chunk_max = nullptr;  // [ceil(len / kChunk)]
  TokenList list, sub;         // the tokens kept so far; those among which the search for a threshold goes on

  void reserve(int64_t n) {
    if (n <= len) return;
    const int64_t stride = n + kSlack;
    memory = std::unique_ptr<float[]>(new float[size_t(8 * stride)]);
    sums = std::unique_ptr<double[]>(new double[size_t(n / kBlock + 1)]);
    len = n;
    float* p = memory.get();
    const auto take = [&p, stride] { return std::exchange(p, p + stride); };
    row = take(), chunk_max = take();
    list = {take(), take(), reinterpret_cast<int32_t*>(take()), 0};
    sub = {take(), take(), reinterpret_cast<int32_t*>(take()), 0};
  }
};
inline RowScratch& row_scratch(int64_t n) {
  thread_local RowScratch scratch;
  scratch.reserve(n);
  return scratch;
}

struct RowScan {
  const float* x;
  float top = -kInf;  // of what is not NaN
  bool has_nan = false;
};

// The largest value of x[0..n), n <= kChunk, NaN aside; ok loses the bits of lanes that held NaN or +inf.
template <class T>
float chunk_top(const T* x, int64_t n, float* copy, uint32_t& ok) {
  F32 top = splat(-kInf);
  for (int64_t i = 0; i < n; i += kLanes) {
    const int32_t left = int32_t(std::min<int64_t>(kLanes, n - i));
    F32 v = left == kLanes ? load(x + i) : load_n(x + i, left);
    if constexpr (!std::is_same_v<T, float>) store(copy + i, v);
    if (left < kLanes) v = select(mask_from_bits(first_bits(left)), v, splat(-kInf));
    ok &= bits_from_mask(v < splat(kInf));
    top = max(v, top);  // in this order NaN gives top
  }
  return reduce_max(top);
}

template <class T>
RowScan scan_row(const T* x, int64_t n, RowScratch& s) {
  RowScan scan{s.row};
  if constexpr (std::is_same_v<T, float>) scan.x = x;
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t len = std::min(kChunk, n - begin);
    uint32_t ok = first_bits(kLanes);
    const float top = chunk_top(x + begin, len, s.row + begin, ok);
    s.chunk_max[begin / kChunk] = top;
    scan.top = top > scan.top ? top : scan.top;
    if (ok != first_bits(kLanes))
      for (int64_t i = begin; i < begin + len; ++i) scan.has_nan |= scan.x[i] != scan.x[i];
  }
  return scan;
}

// The first place of the row's largest value.
inline int64_t first_of(const float* x, int64_t n, const float* chunk_max, float top) {
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    if (chunk_max[begin / kChunk] < top) continue;
    for (int64_t i = begin; i < std::min(n, begin + kChunk); ++i)
      if (x[i] == top) return i;
  }
  return 0;
}

// list = the tokens with x >= low, in index order; no weights yet. -0 becomes 0, so that equal values are equal bits.
inline void gather(const float* x, int64_t n, const float* chunk_max, float low, TokenList& list) {
  int64_t num = 0;
  const F32 bound = splat(low);
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    if (chunk_max[begin / kChunk] < low) continue;
    const int64_t end = std::min(n, begin + kChunk);
    for (int64_t i = begin; i < end; i += kLanes) {
      const int32_t left = int32_t(std::min<int64_t>(kLanes, end - i));
      const F32 v = left == kLanes ? load(x + i) : load_n(x + i, left);
      const uint32_t bits = ~bits_from_mask(v < bound) & first_bits(left);
      if (bits == 0) continue;
      compress(list.idx + num, iota(int32_t(i)), bits);
      num += compress(list.x + num, v + zeros(), bits);
    }
  }
  list.n = num;
}

// list.w = weights of list.x. +inf takes all the mass: those tokens weigh 1 and no other may be in the list.
template <class W>
void weigh(TokenList& list, const W& weight) {
  for (int64_t i = 0; i < list.n; i += kLanes) store(list.w + i, weight(load(list.x + i)));
}

FULMEN_CPU_END
