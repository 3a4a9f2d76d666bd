// SPDX-License-Identifier: Apache-2.0
// top_k by sorting the whole row. Exact: nothing is computed.
#pragma once
#include <fulmen/ops/top_k.h>
#include <fulmen/reference/bounded.h>

#include <numeric>

namespace fulmen::reference {

// Row-major indices [num_rows, k], in the order of the output.
inline std::vector<int64_t> top_k(const TopKArgs& a) {
  const int64_t n = a.input.shape[1], k = a.values.shape[1];
  std::vector<int64_t> all;
  for (int64_t row = 0; row < a.input.shape[0]; ++row) {
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), 0);
    if (a.tie_break == TieBreak::kLargeIndex) std::reverse(order.begin(), order.end());
    const auto rank = [&](int64_t i) {  // NaN is above +inf
      const double x = element(a.input, row * n + i);
      return std::isnan(x) ? std::pair(1, 0.) : std::pair(0, x);
    };
    std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) { return rank(i) > rank(j); });
    order.resize(size_t(k));
    if (!a.sorted) std::sort(order.begin(), order.end());
    all.insert(all.end(), order.begin(), order.end());
  }
  return all;
}

}  // namespace fulmen::reference
