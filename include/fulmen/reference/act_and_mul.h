// SPDX-License-Identifier: Apache-2.0
// act_and_mul in double, from the formulas.
// Bound: in units, what the kernels promise for act (8 for silu, 14 for gelu; gelu_tanh 8 and 3 of its exponent's
// magnitude where the exponential matters), 1 for the product; results below the f32 normal range may be 0.
#pragma once
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

inline double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kSilu: return x / (1 + std::exp(-x));
    case Activation::kGelu: return x * std::erfc(-x / std::sqrt(2.0)) / 2;
    case Activation::kGeluTanh: return x / (1 + std::exp(-1.5957691216057308 * (x + 0.044715 * x * x * x)));
  }
  return 0;
}

inline double activation_units(Activation activation, double x) {
  if (activation == Activation::kSilu) return 8;
  if (activation == Activation::kGelu) return 14;
  const double exponent = 1.5957691216057308 * (x + 0.044715 * x * x * x);
  return 8 + 3 * std::abs(exponent) / (1 + std::exp(exponent));
}

inline Values act_and_mul(const ActAndMulArgs& a) {
  const int64_t n = a.out.shape[a.out.rank - 1], num_rows = n == 0 ? 0 : a.out.num_elements() / n;
  Values out(size_t(num_rows * n));
  for (int64_t row = 0; row < num_rows; ++row)
    for (int64_t i = 0; i < n; ++i) {
      const double gate = element(a.input, row * 2 * n + i), up = element(a.input, row * 2 * n + n + i);
      const double y = activate(a.activation, gate) * up;
      const double bound =
          std::abs(y) * (activation_units(a.activation, gate) + 1) * kUnit + std::abs(gate * up) * 2e-38;
      out[size_t(row * n + i)] = rounded_to({y, bound}, a.out.dtype);
    }
  return out;
}

}  // namespace fulmen::reference
