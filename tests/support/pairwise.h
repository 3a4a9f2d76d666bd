// SPDX-License-Identifier: Apache-2.0
// A small set of combinations in which every pair of values of every two parameters occurs: most bugs of options that
// combine need two of them (Kuhn et al. 2004). Greedy: each new row covers as many missing pairs as a few tries find.
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace fulmen::testing {

// counts[i]: number of values of parameter i. A row: one value per parameter.
inline std::vector<std::vector<int32_t>> pairwise(const std::vector<int32_t>& counts, uint64_t seed = 1) {
  const size_t n = counts.size();
  std::vector<size_t> first(n, 0);
  for (size_t i = 1; i < n; ++i) first[i] = first[i - 1] + size_t(counts[i - 1]);
  const size_t width = first.back() + size_t(counts.back());
  std::vector<bool> missing(width * width, false);
  int64_t left = 0;
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j)
      for (int32_t a = 0; a < counts[i]; ++a)
        for (int32_t b = 0; b < counts[j]; ++b)
          if (i < j) missing[(first[i] + size_t(a)) * width + first[j] + size_t(b)] = true, ++left;
  const auto pair = [&](size_t i, int32_t a, size_t j, int32_t b) {
    if (i > j) std::swap(i, j), std::swap(a, b);
    return (first[i] + size_t(a)) * width + first[j] + size_t(b);
  };
  std::mt19937_64 rng(seed);
  std::vector<std::vector<int32_t>> rows;
  while (left > 0) {
    size_t start = 0;  // some missing pair, so that every row makes progress
    while (!missing[start]) start = (start + 1) % missing.size();
    std::vector<int32_t> best;
    int64_t best_gain = -1;
    for (int32_t attempt = 0; attempt < 20; ++attempt) {
      std::vector<int32_t> row(n, -1);
      for (size_t i = 0; i < n; ++i) {
        if (start / width >= first[i] && start / width < first[i] + size_t(counts[i]))
          row[i] = int32_t(start / width - first[i]);
        if (start % width >= first[i] && start % width < first[i] + size_t(counts[i]))
          row[i] = int32_t(start % width - first[i]);
      }
      std::vector<size_t> order(n);
      for (size_t i = 0; i < n; ++i) order[i] = i;
      std::shuffle(order.begin(), order.end(), rng);
      int64_t total = 1;
      for (size_t i : order) {
        if (row[i] >= 0) continue;
        int64_t top = -1;
        const int32_t offset = int32_t(rng() % uint64_t(counts[i]));
        for (int32_t k = 0; k < counts[i]; ++k) {
          const int32_t a = (k + offset) % counts[i];
          int64_t gain = 0;
          for (size_t j = 0; j < n; ++j) gain += j != i && row[j] >= 0 && missing[pair(i, a, j, row[j])];
          if (gain > top) top = gain, row[i] = a;
        }
        total += top;
      }
      if (total > best_gain) best_gain = total, best = row;
    }
    for (size_t i = 0; i < n; ++i)
      for (size_t j = i + 1; j < n; ++j)
        if (missing[pair(i, best[i], j, best[j])]) missing[pair(i, best[i], j, best[j])] = false, --left;
    rows.push_back(best);
  }
  return rows;
}

}  // namespace fulmen::testing
