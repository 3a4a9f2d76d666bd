// SPDX-License-Identifier: Apache-2.0
// softmax in double. Bound: the weight's and the sum's (token_filter.h), the reciprocal and the product, the output's
// rounding; and for logits at the end of the exponent's range, whether they still count.
#pragma once
#include <fulmen/ops/softmax.h>
#include <fulmen/reference/token_filter.h>

namespace fulmen::reference {

struct SoftmaxReference {
  Values out;
  std::vector<RowStatus> status;
};

inline SoftmaxReference softmax(const SoftmaxArgs& a) {
  const int64_t n = a.logits.shape[1];
  SoftmaxReference ref;
  for (int64_t row = 0; row < a.logits.shape[0]; ++row) {
    const double temperature = a.temperature_arr.defined() ? element(a.temperature_arr, row) : double(a.temperature);
    const FilterParameters p = parameters_of({}, temperature, row);
    const RankedRow r = ranked_row(a.logits, row, TokenValues::kLogits, p);
    ref.status.push_back(r.status);
    double total = 0, error = 0;
    const std::vector<bool> kept = r.kept(r.least);
    for (size_t i = 0; i < r.weight.size(); ++i)
      if (kept[i]) total += r.weight[i], error += r.error[i];
    for (size_t i = 0; i < size_t(n); ++i) {
      if (r.weight.empty()) {
        ref.out.push_back({r.status == RowStatus::kNan ? double(NAN) : 0, 0});
      } else if (!kept[i]) {
        ref.out.push_back({0, 0});
      } else {
        const double y = r.weight[i] / total;
        const double bound = y * ((kSumUnits + 4) * kUnit + error / total) + r.error[i] / total;
        const double end = y * total < 1.0001 * std::exp(kLeastExponent) ? 1.0001 * std::exp(kLeastExponent) : 0;
        ref.out.push_back(rounded_to({y, bound + end}, DType::kF32));
      }
    }
  }
  return ref;
}

}  // namespace fulmen::reference
