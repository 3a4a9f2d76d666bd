// SPDX-License-Identifier: Apache-2.0
// layernorm in double, from the formula.
// Bound, u = one unit: the mean errs by e = sum_error(n) · mean|x| + 2u|mean|, a centred value c by e + u|c|, the
// variance by 2e · mean|c| + e² + (sum_error(n) + 5u) · variance, the reciprocal root by the worst of that plus 4u;
// then two products, the fma with beta, the division by the scale, and the rounding of the output.
#pragma once
#include <fulmen/ops/layernorm.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

inline Values layernorm(const LayerNormArgs& a) {
  const int64_t n = a.gamma.shape[0], num_rows = n == 0 ? 0 : a.input.num_elements() / n;
  const double size = double(n), eps = double(a.eps), divisor = scale_or_one(a.out_scale);
  Values out(size_t(num_rows * n));
  for (int64_t row = 0; row < num_rows; ++row) {
    const auto x = [&](int64_t i) { return element(a.input, row * n + i); };
    double mean = 0, mean_abs = 0, variance = 0, deviation = 0;
    for (int64_t i = 0; i < n; ++i) mean += x(i) / size, mean_abs += std::abs(x(i)) / size;
    for (int64_t i = 0; i < n; ++i)
      variance += std::pow(x(i) - mean, 2) / size, deviation += std::abs(x(i) - mean) / size;
    const double mean_error = sum_error(size) * mean_abs + 2 * kUnit * std::abs(mean);
    const double variance_error =
        2 * mean_error * deviation + mean_error * mean_error + (sum_error(size) + 5 * kUnit) * variance;
    const double scale = 1 / std::sqrt(variance + eps);
    const double least = std::max(variance - variance_error, 0.0) + eps;
    const double relative = std::sqrt((variance + eps) / least) - 1 + 4 * kUnit;
    for (int64_t i = 0; i < n; ++i) {
      const double gamma = element(a.gamma, i), beta = element(a.beta, i), c = x(i) - mean, y = c * scale * gamma;
      const double error = std::abs(y) * (relative + 4 * kUnit) +
                           mean_error * std::abs(scale * gamma) * (1 + relative) +
                           4 * kUnit * (std::abs(y) + std::abs(beta));
      out[size_t(row * n + i)] = rounded_to({(y + beta) / divisor, error / divisor}, a.out.dtype);
    }
  }
  return out;
}

}  // namespace fulmen::reference
