// SPDX-License-Identifier: Apache-2.0
// rmsnorm in double, two passes, from the formula.
// Bound: the mean of squares errs by sum_error(n) + 2 units relatively, its root by half of that; square root,
// reciprocal and the three products by 6 more units; then the output is rounded.
#pragma once
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

inline Values rmsnorm(const RmsNormArgs& a) {
  const int64_t n = a.weight.shape[0], num_rows = n == 0 ? 0 : a.input.num_elements() / n;
  Values out(size_t(num_rows * n));
  for (int64_t row = 0; row < num_rows; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::pow(element(a.input, row * n + i), 2);
    const double scale = 1 / std::sqrt(sum / double(n) + double(a.eps));
    for (int64_t i = 0; i < n; ++i) {
      const double weight = double(a.weight_bias) + element(a.weight, i);
      const double y = element(a.input, row * n + i) * scale * weight;
      // bias + weight is rounded once in f32: half a unit of its larger term where they cancel
      const double relative = sum_error(double(n)) / 2 + 7 * kUnit;
      const double cancel = std::abs(element(a.input, row * n + i) * scale) *
                            (std::abs(weight) + std::abs(double(a.weight_bias))) * kUnit;
      out[size_t(row * n + i)] = rounded_to({y, std::abs(y) * relative + cancel}, a.out.dtype);
    }
  }
  return out;
}

}  // namespace fulmen::reference
