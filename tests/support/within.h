// SPDX-License-Identifier: Apache-2.0
// Comparison with a reference that knows its own bound.
#pragma once
#include <fulmen/reference/bounded.h>
#include <gtest/gtest.h>

#include <cmath>

#include "tests/support/tensor.h"

namespace fulmen::testing {

// Worst |got - value| / bound over all elements: passes at most 1. Infinite values must be equal; NaN never passes.
inline double worst_ratio(const TensorView& got, const reference::Values& expected, int64_t* where = nullptr) {
  double worst = 0;
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    const double x = reference::element(got, i);
    const auto [value, bound] = expected[size_t(i)];
    double ratio = std::isinf(value) ? (x == value ? 0 : INFINITY) : std::abs(x - value) / std::max(bound, 1e-300);
    if (x == value) ratio = 0;
    if (!(ratio <= 1e300)) ratio = INFINITY;
    if (ratio > worst) {
      worst = ratio;
      if (where != nullptr) *where = i;
    }
  }
  return worst;
}

inline ::testing::AssertionResult within(const Tensor& got, const reference::Values& expected) {
  if (got.view().num_elements() != int64_t(expected.size()))
    return ::testing::AssertionFailure() << got.view().num_elements() << " elements, the reference has "
                                         << expected.size();
  if (!got.guards_intact()) return ::testing::AssertionFailure() << "bytes before or after the tensor were written";
  int64_t at = 0;
  const double worst = worst_ratio(got, expected, &at);
  if (worst <= 1) return ::testing::AssertionSuccess() << "worst error is " << worst << " of the bound";
  return ::testing::AssertionFailure() << "element " << at << " is " << reference::element(got, at) << ", expected "
                                       << expected[size_t(at)].value << " ± " << expected[size_t(at)].bound;
}

}  // namespace fulmen::testing
