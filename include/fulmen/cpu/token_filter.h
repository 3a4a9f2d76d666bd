// SPDX-License-Identifier: Apache-2.0
// CPU token_filter, and the way from a row to the tokens that its filters keep, which sample shares. A work item is one
// row: a scan for the largest values, a list of the tokens that can matter (for top-k usually a few hundred), then cuts
// of that list. Called by src/cpu/levels/token_filter.cc.
#pragma once
#include <fulmen/cpu/token_select.h>
#include <fulmen/ops/token_filter.h>

FULMEN_CPU_BEGIN

// A row's filter with its numbers looked up and judged.
struct RowFilter {
  int64_t top_k = TokenFilter::kAll;
  float top_p = 1, min_p = 0;
  float inv_temperature = 1;
  FilterOrder order = FilterOrder::kTopKFirst;
  bool keep_ties = false;
  RowStatus status = RowStatus::kOk;  // kBadParameter, or nothing to say

  bool keeps_all() const { return top_k == TokenFilter::kAll && !(top_p < 1) && !(min_p > 0); }
  void take_first() { *this = {.top_k = 1, .status = status}; }
};

inline RowFilter row_filter(const TokenFilter& f, float temperature, int64_t row, int64_t vocab_size) {
  RowFilter r{.top_k = f.top_k, .top_p = f.top_p, .min_p = f.min_p, .order = f.order, .keep_ties = f.keep_ties};
  if (f.top_k_arr.defined()) {
    const int64_t at = row * f.top_k_arr.strides[0];
    r.top_k = f.top_k_arr.dtype == DType::kI64 ? f.top_k_arr.as<int64_t>()[at] : f.top_k_arr.as<int32_t>()[at];
  }
  if (f.top_p_arr.defined()) r.top_p = f.top_p_arr.as<float>()[row * f.top_p_arr.strides[0]];
  if (f.min_p_arr.defined()) r.min_p = f.min_p_arr.as<float>()[row * f.min_p_arr.strides[0]];
  r.inv_temperature = 1 / temperature;
  const bool good = r.top_k >= 1 && r.top_p >= 0 && r.top_p <= 1 && r.min_p >= 0 && r.min_p <= 1 && temperature >= 0 &&
                    temperature < kInf;
  if (!good) r.status = RowStatus::kBadParameter;
  if (r.top_k >= vocab_size) r.top_k = TokenFilter::kAll;
  // 1 / temperature overflows: no second logit that differs has any weight
  if (!good || !(r.inv_temperature < kInf)) r.take_first();
  if (r.top_p <= 0) r.top_k = 1;
  if (r.top_k == 1 && !r.keep_ties) r.take_first();
  return r;
}

// One row in f32 and what its values weigh.
struct TokenRow {
  const float* x;
  int64_t n;
  TokenValues values;
  float top;    // its largest value
  float scale;  // of probabilities: a power of two that keeps the sums of huge ones finite
};

inline float scale_of(float top) { return top > 0x1p60f ? 0x1p-66f : 1.f; }

// f(weight): with the function from a value to its weight.
template <class F>
void with_weight(const TokenRow& row, float inv_temperature, F&& f) {
  if (row.values == TokenValues::kProbs) return f(ProbWeight{splat(row.scale)});
  f(LogitWeight{splat(row.top), splat(inv_temperature)});
}

// The least value that may be drawn at all: a positive probability, a logit above -inf; +inf shuts out the others.
inline float least_value(const TokenRow& row) {
  if (row.top == kInf) return kInf;
  return row.values == TokenValues::kProbs ? std::numeric_limits<float>::denorm_min()
                                           : std::numeric_limits<float>::lowest();
}

// The least value whose probability is at least min_p times the largest one's. Exact for probabilities.
inline float min_p_bound(const TokenRow& row, const RowFilter& f) {
  if (!(f.min_p > 0)) return -kInf;
  if (row.values == TokenValues::kLogits) return row.top + float(std::log(double(f.min_p)) / double(f.inv_temperature));
  const double bound = double(f.min_p) * double(row.top);
  const float rounded = float(bound);
  return double(rounded) < bound ? std::nextafter(rounded, kInf) : rounded;
}

// A value below which the whole row holds less than half of the mass that top_p may drop.
inline float top_p_bound(const TokenRow& row, const RowFilter& f, double row_mass) {
  const double weight = (1 - double(f.top_p)) / 2 * row_mass / double(row.n);
  if (row.values == TokenValues::kProbs) return float(weight / double(row.scale));
  return row.top + float(std::log(weight) / double(f.inv_temperature));
}

inline void weigh_list(const TokenRow& row, const RowFilter& f, TokenList& list) {
  if (row.top == kInf) return std::fill(list.w, list.w + list.n, 1.f);
  with_weight(row, f.inv_temperature, [&](const auto& weight) { weigh(list, weight); });
}

inline double mass_of(const TokenList& list, double* sums) {
  return sum_blocks(list.w, list.n, ProbWeight{splat(1)}, sums);
}

// s.list = the tokens that the filter keeps, in index order, with their weights. The scan has filled s.chunk_max.
inline void keep_tokens(const TokenRow& row, const RowFilter& f, RowScratch& s) {
  const bool mass_of_row = f.top_p < 1 && (f.order == FilterOrder::kJoint || f.top_k == TokenFilter::kAll);
  float low = least_value(row);
  double row_mass = 0;
  if (mass_of_row && row.top < kInf) {
    with_weight(row, f.inv_temperature,
                [&](const auto& weight) { row_mass = sum_blocks(row.x, row.n, weight, s.sums.get()); });
    low = std::max(low, top_p_bound(row, f, row_mass));
  }
  const bool early_min_p = f.min_p > 0 && (mass_of_row || !(f.top_p < 1));
  // a list that holds all tokens down to the shortest of the prefixes is enough; margin: logits' weights are rounded
  if (early_min_p)
    low = std::max(
        low, row.values == TokenValues::kProbs ? min_p_bound(row, f) : std::nextafter(min_p_bound(row, f), -kInf));
  gather_top_k(row.x, row.n, f.top_k, low, s);
  const auto cut = [&](const Goal& goal, double list_mass, bool weights) {
    Cut at = cut_at(s.list, goal, list_mass, s.sub);
    if (f.keep_ties && at.tie_end != INT64_MAX) at.tie_end = s.list.n;
    keep(s.list, at, weights);
  };
  if (f.top_k != TokenFilter::kAll && !mass_of_row) cut({f.top_k}, 0, false);
  weigh_list(row, f, s.list);
  if (f.top_p < 1) {
    const double mass = mass_of(s.list, s.sums.get());
    if (row.top == kInf || !mass_of_row) row_mass = mass;
    cut({mass_of_row ? f.top_k : TokenFilter::kAll, double(f.top_p) * row_mass}, mass, true);
  }
  if (f.min_p > 0 && row.top < kInf) {
    const float bound = row.values == TokenValues::kProbs ? min_p_bound(row, f) * row.scale : f.min_p;
    keep_heavy(s.list, bound);
  }
}

// What stops a row before it is filtered: NaN, or no token of positive probability.
inline RowStatus judge(const RowScan& scan, TokenValues values, RowStatus parameters) {
  if (scan.has_nan) return RowStatus::kNan;
  if (values == TokenValues::kProbs ? !(scan.top > 0) : scan.top == -kInf) return RowStatus::kEmpty;
  if (parameters != RowStatus::kOk) return parameters;
  return scan.top == kInf ? RowStatus::kInfinite : RowStatus::kOk;
}

inline void set_status(const TensorView& status, int64_t row, RowStatus value) {
  if (status.defined()) status.as<int32_t>()[row * status.strides[0]] = int32_t(value);
}

template <class T>
RowStatus filter_row(const T* x, int64_t n, const RowFilter& f, TokenValues values, T* out) {
  RowScratch& s = row_scratch(n);
  const RowScan scan = scan_row(x, n, s);
  const RowStatus status = judge(scan, values, f.status);
  const bool logits = values == TokenValues::kLogits;
  if (status == RowStatus::kNan || status == RowStatus::kEmpty) {
    const float fill = status == RowStatus::kNan ? std::numeric_limits<float>::quiet_NaN() : logits ? -kInf : 0.f;
    std::fill(out, out + n, from_f32<T>(fill));
    return status;
  }
  keep_tokens({scan.x, n, values, scan.top, scale_of(scan.top)}, f, s);
  const TokenList& list = s.list;
  const double inv = logits ? 1 : 1 / mass_of(list, s.sums.get());  // double: the mass may be subnormal
  std::fill(out, out + n, from_f32<T>(logits ? -kInf : 0.f));
  for (int64_t i = 0; i < list.n; ++i)
    out[list.idx[i]] = from_f32<T>(logits ? list.x[i] : float(double(list.w[i]) * inv));
  return status;
}

inline void token_filter(const TokenFilterArgs& a, const TokenFilterDims& d, const Executor& executor) {
  for_dtype<float, f16, bf16>(a.input.dtype, [&]<class T>(T) {
    parallel_for(executor, d.batch_size, [&](int64_t row, int32_t) {
      const RowFilter filter = row_filter(a.filter, 1, row, d.vocab_size);
      const RowStatus status = filter_row(a.input.as<T>() + row * a.input.strides[0], d.vocab_size, filter, a.values,
                                          a.out.as<T>() + row * a.out.strides[0]);
      set_status(a.status, row, status);
    });
  });
}

FULMEN_CPU_END
