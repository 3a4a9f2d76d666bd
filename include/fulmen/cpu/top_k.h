// SPDX-License-Identifier: Apache-2.0
// CPU top_k. A work item is one row: scan, list of candidates, cut at the k-th, sort of the k if asked.
// Called by src/cpu/levels/top_k.cc.
#pragma once
#include <fulmen/cpu/token_select.h>
#include <fulmen/ops/top_k.h>

#include <numeric>

FULMEN_CPU_BEGIN

// s.list = the k largest of the row, in index order. No NaN in the row.
inline void keep_top_k(const RowScan& scan, int64_t n, int64_t k, TieBreak tie_break, RowScratch& s) {
  gather_top_k(scan.x, n, k, -kInf, s);
  if (s.list.n == k) return;
  const Cut cut = cut_at(s.list, {k}, 0, s.sub);
  if (tie_break == TieBreak::kSmallIndex) return keep(s.list, cut, false);
  int64_t excess = std::count(s.list.x + cut.tie_end, s.list.x + s.list.n, cut.value);
  keep(s.list, {cut.value, s.list.n}, false);  // with all ties: then the first ones go
  int64_t num = 0;
  for (int64_t i = 0; i < s.list.n; ++i) {
    if (s.list.x[i] == cut.value && excess > 0) {
      --excess;
      continue;
    }
    s.list.x[num] = s.list.x[i], s.list.idx[num] = s.list.idx[i];
    ++num;
  }
  s.list.n = num;
}

// NaN before everything else, then by value.
inline bool larger(float a, float b) {
  const bool a_nan = a != a, b_nan = b != b;
  return a_nan || b_nan ? a_nan && !b_nan : a > b;
}

// The same where the row holds NaN: by sorting, which such rows are not worth avoiding.
inline void keep_top_k_with_nan(const float* x, int64_t n, int64_t k, TieBreak tie_break, RowScratch& s) {
  std::iota(s.list.idx, s.list.idx + n, 0);
  const bool small = tie_break == TieBreak::kSmallIndex;
  std::partial_sort(s.list.idx, s.list.idx + k, s.list.idx + n, [x, small](int32_t a, int32_t b) {
    if (larger(x[a], x[b]) || larger(x[b], x[a])) return larger(x[a], x[b]);
    return small ? a < b : a > b;
  });
  std::sort(s.list.idx, s.list.idx + k);
  s.list.n = k;
}

// s.list = the k largest of the row, in index order.
template <class T>
RowScan select_top_k(const T* x, int64_t n, int64_t k, TieBreak tie_break, RowScratch& s) {
  const RowScan scan = scan_row(x, n, s);
  if (scan.has_nan)
    keep_top_k_with_nan(scan.x, n, k, tie_break, s);
  else
    keep_top_k(scan, n, k, tie_break, s);
  return scan;
}

template <class T>
void top_k_row(const T* x, int64_t n, const TopKArgs& a, int64_t row) {
  const int64_t k = a.values.shape[1];
  RowScratch& s = row_scratch(n);
  const RowScan scan = select_top_k(x, n, k, a.tie_break, s);
  if (a.sorted) {
    const bool small = a.tie_break == TieBreak::kSmallIndex;
    std::sort(s.list.idx, s.list.idx + k, [v = scan.x, small](int32_t i, int32_t j) {
      if (larger(v[i], v[j]) || larger(v[j], v[i])) return larger(v[i], v[j]);
      return small ? i < j : i > j;
    });
  }
  for (int64_t i = 0; i < k; ++i) {
    a.values.as<T>()[row * a.values.strides[0] + i] = x[s.list.idx[i]];
    const int64_t at = row * a.indices.strides[0] + i;
    if (a.indices.dtype == DType::kI64)
      a.indices.as<int64_t>()[at] = s.list.idx[i];
    else
      a.indices.as<int32_t>()[at] = s.list.idx[i];
  }
}

inline void top_k(const TopKArgs& a, const TopKDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    parallel_for(executor, d.num_rows, [&](int64_t row, int32_t) {
      top_k_row(a.input.as<T>() + row * a.input.strides[0], d.row_len, a, row);
    });
  });
}

FULMEN_CPU_END
