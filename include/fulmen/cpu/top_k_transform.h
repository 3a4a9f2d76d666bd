// SPDX-License-Identifier: Apache-2.0
// CPU top_k_transform. A work item is one row: top_k's search of its window, then a look-up per token.
// Called by src/cpu/levels/top_k_transform.cc.
#pragma once
#include <fulmen/cpu/top_k.h>
#include <fulmen/ops/top_k_transform.h>

FULMEN_CPU_BEGIN

inline int64_t id_at(const TensorView& t, int64_t i) {
  return t.dtype == DType::kI64 ? t.as<const int64_t>()[i] : t.as<const int32_t>()[i];
}
inline int64_t id_or(const TensorView& t, int64_t row, int64_t otherwise) {
  return t.defined() ? id_at(t, row * t.strides[0]) : otherwise;
}
inline void set_id(const TensorView& t, int64_t row, int64_t i, int64_t value) {
  const int64_t at = row * t.strides[0] + i;
  if (t.dtype == DType::kI64)
    t.as<int64_t>()[at] = value;
  else
    t.as<int32_t>()[at] = int32_t(value);
}

// What out holds for place i of a row's window; -1 where a table has no answer.
inline int64_t transformed(const TopKTransformArgs& a, int64_t row, int64_t i) {
  if (a.offsets.defined()) return id_or(a.offsets, row, 0) + i;
  if (!a.page_table.defined()) return i;
  const TensorView& table = a.page_table;
  const int64_t batch = id_or(a.row_to_batch, row, row), token = i + id_or(a.page_starts, row, 0);
  if (batch < 0 || batch >= table.shape[0] || token < 0 || token / a.page_size >= table.shape[1]) return -1;
  const int64_t page = id_at(table, batch * table.strides[0] + token / a.page_size);
  return page < 0 ? -1 : page * a.page_size + token % a.page_size;
}

template <class T>
void top_k_transform_row(const TopKTransformArgs& a, int64_t row, int64_t row_len, int64_t k) {
  int64_t start = id_or(a.row_starts, row, 0), n = id_or(a.lengths, row, 0);
  if (start < 0 || start > row_len) start = n = 0;
  n = std::clamp<int64_t>(n, 0, row_len - start);
  const int64_t found = std::min(n, k);
  RowScratch& s = row_scratch(std::max<int64_t>(n, 1));
  if (n > k)
    select_top_k(a.input.as<T>() + row * a.input.strides[0] + start, n, k, a.tie_break, s);
  else
    std::iota(s.list.idx, s.list.idx + n, 0);
  for (int64_t i = 0; i < k; ++i) {
    const int64_t place = i < found ? s.list.idx[i] : -1;
    set_id(a.out, row, i, place < 0 ? -1 : transformed(a, row, place));
    if (a.places.defined()) set_id(a.places, row, i, place);
  }
}

inline void top_k_transform(const TopKTransformArgs& a, const TopKDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    parallel_for(executor, d.num_rows, [&](int64_t row, int32_t) { top_k_transform_row<T>(a, row, d.row_len, d.k); });
  });
}

FULMEN_CPU_END
