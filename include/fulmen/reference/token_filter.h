// SPDX-License-Identifier: Apache-2.0
// token_filter in double: the order by sorting, masses by adding along it.
// A kernel keeps a prefix of the same order. Where a running mass is closer to its goal than rounding allows, more than
// one length is right: `least` to `most`.
// Bounds: a logit's weight exp(y), y = (x - max) / temperature, errs by (3|y| + 3) units relatively (three roundings in
// y, then exp); a mass by that and by 80 units of itself (64 additions per partial sum, a tree of 4, the scale).
#pragma once
#include <fulmen/ops/token_filter.h>
#include <fulmen/reference/bounded.h>

#include <numeric>

namespace fulmen::reference {

inline constexpr double kSumUnits = 80;
inline constexpr double kLeastExponent = -87;  // below, softmax weights are 0

struct FilterParameters {
  double top_k, top_p, min_p, temperature = 1;
  FilterOrder order = FilterOrder::kTopKFirst;
  bool keep_ties = false;
  bool bad = false;
};

inline FilterParameters parameters_of(const TokenFilter& f, double temperature, int64_t row) {
  FilterParameters p{double(f.top_k), double(f.top_p), double(f.min_p), temperature, f.order, f.keep_ties};
  if (f.top_k_arr.defined()) p.top_k = element(f.top_k_arr, row);
  if (f.top_p_arr.defined()) p.top_p = element(f.top_p_arr, row);
  if (f.min_p_arr.defined()) p.min_p = element(f.min_p_arr, row);
  p.bad = !(p.top_k >= 1 && p.top_p >= 0 && p.top_p <= 1 && p.min_p >= 0 && p.min_p <= 1 && temperature >= 0) ||
          std::isinf(temperature);
  if (p.bad || temperature == 0 || (p.top_k == 1 && !p.keep_ties)) p = {1, 1, 0, 1, p.order, false, p.bad};
  return p;
}

// One row: its values in order, what they weigh, and how many a filter keeps.
struct RankedRow {
  RowStatus status = RowStatus::kOk;
  std::vector<double> value, weight, error;  // by index; error: of the weight, absolute
  std::vector<int64_t> order;                // indices, likeliest first, of tokens that may be kept at all
  int64_t least = 0, most = 0;               // lengths of the prefix that are right
  bool keep_ties = false;

  // The prefix of that length, as flags by index.
  std::vector<bool> kept(int64_t len) const {
    std::vector<bool> flags(value.size(), false);
    for (size_t i = 0; i < order.size(); ++i) {
      const bool tie = keep_ties && len > 0 && value[size_t(order[i])] == value[size_t(order[size_t(len - 1)])];
      flags[size_t(order[i])] = int64_t(i) < len || tie;
    }
    return flags;
  }
};

inline void weigh(RankedRow& r, TokenValues values, double temperature) {
  const double top = *std::max_element(r.value.begin(), r.value.end());
  for (double x : r.value) {
    const double y = (x - top) / temperature;
    double w = values == TokenValues::kProbs ? std::max(x, 0.) : y < kLeastExponent ? 0 : std::exp(y);
    if (std::isinf(top)) w = x == top;
    r.weight.push_back(w);
    r.error.push_back(values == TokenValues::kProbs || std::isinf(top) ? 0 : w * (3 * std::abs(y) + 3) * kUnit);
  }
}

// Lengths at which the mass along the order reaches share * total.
inline void cut_at_mass(RankedRow& r, double share, double total, double total_error, int64_t limit) {
  double mass = 0, error = 0;
  int64_t least = -1, most = -1, len = 0;
  for (; len < limit && most < 0; ++len) {
    const size_t i = size_t(r.order[size_t(len)]);
    mass += r.weight[i], error += r.error[i];
    const double slack = error + share * total_error + (mass + share * total) * kSumUnits * kUnit;
    if (least < 0 && mass >= share * total - slack) least = len + 1;
    if (mass >= share * total + slack) most = len + 1;
  }
  r.least = std::min(r.least, std::max<int64_t>(1, least < 0 ? limit : least));
  r.most = std::min(r.most, std::max<int64_t>(1, most < 0 ? limit : most));
}

inline void cut(RankedRow& r, const FilterParameters& p, TokenValues values) {
  const int64_t n = int64_t(r.order.size());
  const int64_t k = p.top_k < double(n) ? int64_t(p.top_k) : n;
  int64_t all_k = k;
  if (p.keep_ties)
    while (all_k < n && r.value[size_t(r.order[size_t(all_k)])] == r.value[size_t(r.order[size_t(k - 1)])]) ++all_k;
  r.least = r.most = k;
  if (p.top_p < 1) {
    const int64_t span = p.order == FilterOrder::kTopKFirst ? all_k : n;
    double total = 0, error = 0;
    for (int64_t i = 0; i < span; ++i)
      total += r.weight[size_t(r.order[size_t(i)])], error += r.error[size_t(r.order[size_t(i)])];
    if (p.order == FilterOrder::kTopKFirst) r.least = r.most = all_k;
    cut_at_mass(r, p.top_p, total, error, span);
  }
  if (!(p.min_p > 0)) return;
  const double top = r.weight[size_t(r.order[0])];
  int64_t sure = 0, maybe = 0;
  for (int64_t i : r.order) {
    const double w = r.weight[size_t(i)],
                 slack = values == TokenValues::kProbs ? 0 : r.error[size_t(i)] + w * 4 * kUnit;
    sure += w - slack >= p.min_p * top, maybe += w + slack >= p.min_p * top;
  }
  r.least = std::min(r.least, std::max<int64_t>(1, sure)), r.most = std::min(r.most, std::max<int64_t>(1, maybe));
}

inline RankedRow ranked_row(const TensorView& input, int64_t row, TokenValues values, const FilterParameters& p) {
  RankedRow r;
  r.keep_ties = p.keep_ties;
  bool nan = false;
  double top = -INFINITY;
  for (int64_t i = 0; i < input.shape[1]; ++i) {
    r.value.push_back(element(input, row * input.shape[1] + i));
    nan |= std::isnan(r.value.back());
    top = std::max(top, r.value.back());
  }
  const bool probs = values == TokenValues::kProbs;
  if (nan || (probs ? top <= 0 : top == -INFINITY)) {
    r.status = nan ? RowStatus::kNan : RowStatus::kEmpty;
    return r;
  }
  r.status = p.bad ? RowStatus::kBadParameter : std::isinf(top) ? RowStatus::kInfinite : RowStatus::kOk;
  weigh(r, values, p.temperature);
  for (int64_t i = 0; i < input.shape[1]; ++i) {
    const double x = r.value[size_t(i)];
    if (std::isinf(top) ? x == top : probs ? x > 0 : x > -INFINITY) r.order.push_back(i);
  }
  std::stable_sort(r.order.begin(), r.order.end(),
                   [&](int64_t i, int64_t j) { return r.value[size_t(i)] > r.value[size_t(j)]; });
  cut(r, p, values);
  return r;
}

// The output row for a prefix of `len` tokens, least <= len <= most.
inline Values filtered_row(const RankedRow& r, int64_t len, TokenValues values, DType dtype) {
  Values out(r.value.size());
  const std::vector<bool> kept = r.kept(len);
  double total = 0;
  for (size_t i = 0; i < out.size(); ++i) total += kept[i] ? r.weight[i] : 0;
  for (size_t i = 0; i < out.size(); ++i) {
    if (values == TokenValues::kLogits) {
      out[i] = {kept[i] ? r.value[i] : -INFINITY, 0};
    } else if (kept[i]) {
      const double y = r.weight[i] / total;
      out[i] = rounded_to({y, y * (kSumUnits + 4) * kUnit}, dtype);
    }
  }
  return out;
}

}  // namespace fulmen::reference
