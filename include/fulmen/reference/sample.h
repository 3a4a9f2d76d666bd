// SPDX-License-Identifier: Apache-2.0
// sample in double: the exact distribution of a row, and whether a token is right for the row's random number. It is if
// the token's interval of the cumulative distribution, widened by the bound of the running masses (token_filter.h),
// holds u, for some prefix that the filter may keep.
#pragma once
#include <fulmen/core/philox.h>
#include <fulmen/ops/sample.h>
#include <fulmen/reference/token_filter.h>

namespace fulmen::reference {

inline PhiloxBlock random_block(const RandomSource& r, int64_t row, int64_t step) {
  const auto pick = [row](const TensorView& t, uint64_t number) {
    return t.defined() ? t.as<uint64_t>()[t.shape[0] == 1 ? 0 : row * t.strides[0]] : number;
  };
  const bool shared_seed = !r.seed_arr.defined() || r.seed_arr.shape[0] == 1;
  return philox(pick(r.seed_arr, r.seed), pick(r.offset_arr, r.offset) + uint64_t(step),
                shared_seed ? uint64_t(row) : 0);
}

inline RankedRow sampled_row(const SampleArgs& a, int64_t row) {
  const double temperature = a.temperature_arr.defined() ? element(a.temperature_arr, row) : double(a.temperature);
  const int64_t input_row = a.indices.defined() ? int64_t(element(a.indices, row)) : row;
  return ranked_row(a.input, input_row, a.values, parameters_of(a.filter, temperature, row));
}

// Probability of every token for a prefix of `len`.
inline std::vector<double> distribution(const RankedRow& r, int64_t len) {
  std::vector<double> p(r.value.size());
  const std::vector<bool> kept = r.kept(len);
  double total = 0;
  for (size_t i = 0; i < p.size(); ++i) total += p[i] = kept[i] ? r.weight[i] : 0;
  for (double& x : p) x /= total;
  return p;
}

inline bool acceptable(const RankedRow& r, double u, int64_t token, double extra_units = 0) {
  if (r.status == RowStatus::kNan || r.status == RowStatus::kEmpty) return token == 0;
  if (token < 0 || token >= int64_t(r.value.size())) return false;
  for (int64_t len = r.least; len <= r.most; ++len) {
    const std::vector<double> p = distribution(r, len);
    if (!(p[size_t(token)] > 0)) continue;
    double below = 0, weight = 0, error = 0;
    for (size_t i = 0; i < p.size(); ++i) {
      if (int64_t(i) < token) below += p[i];
      if (p[i] > 0) weight += r.weight[i], error += r.error[i];
    }
    const double bound = 2 * (error / weight + (kSumUnits + extra_units) * kUnit);
    if (below - bound <= u && u <= below + p[size_t(token)] + bound) return true;
  }
  return false;
}

inline bool acceptable(const SampleArgs& a, int64_t row, int64_t token) {
  return acceptable(sampled_row(a, row), uniform(random_block(a.random, row, 0), 0), token);
}

}  // namespace fulmen::reference
