// SPDX-License-Identifier: Apache-2.0
// rmsnorm in double, two passes, from the formula.
// Bound: the mean of squares errs by sum_error(n) + 2 units relatively, its root by half of that; square root,
// reciprocal and the products by 8 more units; then the output is rounded.
#pragma once
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

inline Values rmsnorm(const RmsNormArgs& a) {
  const int64_t n = a.weight.shape[0], num_rows = n == 0 ? 0 : a.input.num_elements() / n;
  const double bias = double(a.weight_bias), divisor = scale_or_one(a.out_scale);
  Values out(size_t(num_rows * n));
  for (int64_t row = 0; row < num_rows; ++row) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += std::pow(element(a.input, row * n + i), 2);
    const double scale = 1 / std::sqrt(sum / double(n) + double(a.eps)) / divisor;
    for (int64_t i = 0; i < n; ++i) {
      const double x = element(a.input, row * n + i) * scale, weight = bias + element(a.weight, i);
      const double relative = sum_error(double(n)) / 2 + 9 * kUnit;
      // bias + weight is rounded once in f32: half a unit of its larger term where they cancel
      const double cancel = std::abs(x) * (std::abs(weight) + std::abs(bias)) * kUnit;
      out[size_t(row * n + i)] = rounded_to({x * weight, std::abs(x * weight) * relative + cancel}, a.out.dtype);
    }
  }
  return out;
}

}  // namespace fulmen::reference
