// SPDX-License-Identifier: Apache-2.0
// top_k_transform by sorting each window. Exact: nothing is computed.
#pragma once
#include <fulmen/ops/top_k_transform.h>
#include <fulmen/reference/bounded.h>

#include <numeric>

namespace fulmen::reference {

inline int64_t id_of_row(const TensorView& t, int64_t row, int64_t otherwise) {
  return t.defined() ? int64_t(element(t, row)) : otherwise;
}

// Places in the window, in index order.
inline std::vector<int64_t> places_of_row(const TopKTransformArgs& a, int64_t row) {
  const int64_t row_len = a.input.shape[1], start = id_of_row(a.row_starts, row, 0);
  if (start < 0 || start > row_len) return {};
  std::vector<int64_t> places(size_t(std::clamp<int64_t>(id_of_row(a.lengths, row, 0), 0, row_len - start)));
  std::iota(places.begin(), places.end(), 0);
  if (a.tie_break == TieBreak::kLargeIndex) std::reverse(places.begin(), places.end());
  const auto rank = [&](int64_t i) {  // NaN is above +inf
    const double x = element(a.input, row * row_len + start + i);
    return std::isnan(x) ? std::pair(1, 0.) : std::pair(0, x);
  };
  std::stable_sort(places.begin(), places.end(), [&](int64_t i, int64_t j) { return rank(i) > rank(j); });
  places.resize(std::min(places.size(), size_t(a.out.shape[1])));
  std::sort(places.begin(), places.end());
  return places;
}

inline int64_t token_of_place(const TopKTransformArgs& a, int64_t row, int64_t i) {
  if (!a.page_table.defined()) return i + id_of_row(a.offsets, row, 0);
  const int64_t batch = id_of_row(a.row_to_batch, row, row), token = i + id_of_row(a.page_starts, row, 0);
  const int64_t num_pages = a.page_table.shape[1];
  if (batch < 0 || batch >= a.page_table.shape[0] || token < 0 || token >= num_pages * a.page_size) return -1;
  const int64_t page = int64_t(element(a.page_table, batch * num_pages + token / a.page_size));
  return page < 0 ? -1 : page * a.page_size + token % a.page_size;
}

// Row-major [num_rows, k]: what out must hold, or places.
inline std::vector<int64_t> top_k_transform(const TopKTransformArgs& a, bool places) {
  std::vector<int64_t> all;
  for (int64_t row = 0; row < a.out.shape[0]; ++row) {
    std::vector<int64_t> found = places_of_row(a, row);
    for (int64_t& i : found) i = places ? i : token_of_place(a, row, i);
    found.resize(size_t(a.out.shape[1]), -1);
    all.insert(all.end(), found.begin(), found.end());
  }
  return all;
}

}  // namespace fulmen::reference
