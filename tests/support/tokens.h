// SPDX-License-Identifier: Apache-2.0
// Rows of logits and probabilities for tests of sampling, and the chi-square test of drawn tokens.
#pragma once
#include <fulmen/ops/token_filter.h>
#include <fulmen/reference/bounded.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <vector>

#include "tests/support/tensor.h"

namespace fulmen::testing {

// kFlat: all equal. kTied: few different values. kNormal and kPeaked: standard deviation 1 and 5. kSparse: mostly
// tokens that can never be drawn.
enum class Shape { kFlat, kTied, kNormal, kPeaked, kSparse };
inline constexpr Shape kShapes[] = {Shape::kFlat, Shape::kTied, Shape::kNormal, Shape::kPeaked, Shape::kSparse};

inline void fill_tokens(Tensor& t, TokenValues values, Shape shape, uint64_t seed) {
  std::mt19937_64 rng(seed);
  std::normal_distribution<double> normal;
  const int64_t n = t.view().shape[1];
  for (int64_t row = 0; row < t.view().shape[0]; ++row) {
    std::vector<double> x;
    for (int64_t i = 0; i < n; ++i) {
      const double z = normal(rng);
      double v = shape == Shape::kPeaked ? 5 * z : shape == Shape::kFlat ? 1.5 : z;
      if (shape == Shape::kTied) v = std::floor(z);
      if (shape == Shape::kSparse && i % 7 != row % 7 && i != n - 1) v = -INFINITY;
      x.push_back(v);
    }
    if (values == TokenValues::kProbs) {
      double total = 0;
      for (double& v : x) total += v = std::exp(v);
      for (double& v : x) v /= total;
    }
    for (int64_t i = 0; i < n; ++i) t.set(row * n + i, x[size_t(i)]);
  }
}

// How far the counts are from the distribution, as a normal deviate (Wilson and Hilferty's cube root): 3.72 is exceeded
// by chance once in 10^4. Tokens expected fewer than 8 times are pooled. Infinite if an impossible token was drawn.
inline double chi_square_deviate(const std::vector<int64_t>& counts, const std::vector<double>& p) {
  const double num_draws = double(std::accumulate(counts.begin(), counts.end(), int64_t(0)));
  double chi2 = 0, pooled_expected = 0, pooled_count = 0;
  int64_t num_bins = 0;
  const auto add = [&](double expected, double count) {
    chi2 += (count - expected) * (count - expected) / expected;
    ++num_bins;
  };
  for (size_t i = 0; i < p.size(); ++i) {
    if (p[i] == 0 && counts[i] > 0) return INFINITY;
    if (p[i] * num_draws >= 8) {
      add(p[i] * num_draws, double(counts[i]));
    } else {
      pooled_expected += p[i] * num_draws, pooled_count += double(counts[i]);
    }
  }
  if (pooled_expected >= 1) add(pooled_expected, pooled_count);
  const double df = double(num_bins - 1);
  if (df < 1) return 0;
  return (std::cbrt(chi2 / df) - (1 - 2 / (9 * df))) / std::sqrt(2 / (9 * df));
}

// FULMEN_SAMPLING_DRAWS multiplies the number of draws of the distribution tests; CI uses 1.
inline int64_t draws(int64_t base) {
  const char* text = std::getenv("FULMEN_SAMPLING_DRAWS");
  return base * (text != nullptr ? std::max(1, std::atoi(text)) : 1);
}

}  // namespace fulmen::testing
