// SPDX-License-Identifier: Apache-2.0
// fused_add_rmsnorm in double, from the formula. Call it before the op: it reads what the op overwrites.
// Bound: input + residual is rounded once in f32, 1 unit; that moves the mean of squares by 2 units and x by 1. The
// rest is rmsnorm's bound.
#pragma once
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

struct FusedAddRmsNorm {
  Values residual, out;
};

inline FusedAddRmsNorm fused_add_rmsnorm(const FusedAddRmsNormArgs& a) {
  const int64_t n = a.weight.shape[0], num_rows = n == 0 ? 0 : a.input.num_elements() / n;
  const double bias = double(a.weight_bias), divisor = scale_or_one(a.out_scale);
  FusedAddRmsNorm r{Values(size_t(num_rows * n)), Values(size_t(num_rows * n))};
  std::vector<double> x(static_cast<size_t>(n));
  for (int64_t row = 0; row < num_rows; ++row) {
    double squares = 0;
    for (int64_t i = 0; i < n; ++i) {
      x[size_t(i)] = element(a.input, row * n + i) + element(a.residual, row * n + i);
      squares += x[size_t(i)] * x[size_t(i)];
    }
    const double scale = 1 / std::sqrt(squares / double(n) + double(a.eps)) / divisor;
    for (int64_t i = 0; i < n; ++i) {
      const double y = x[size_t(i)] * scale, weight = bias + element(a.weight, i);
      const double relative = sum_error(double(n)) / 2 + 11 * kUnit;
      const double cancel = std::abs(y) * (std::abs(weight) + std::abs(bias)) * kUnit;
      const size_t at = size_t(row * n + i);
      r.residual[at] = rounded_to({x[size_t(i)], std::abs(x[size_t(i)]) * kUnit}, a.residual.dtype);
      r.out[at] = rounded_to({y * weight, std::abs(y * weight) * relative + cancel}, a.out.dtype);
    }
  }
  return r;
}

}  // namespace fulmen::reference
