// SPDX-License-Identifier: Apache-2.0
// merge_state and merge_states in double, from the formula.
// Bound for n states, u = 2^-24: a weight errs by E_i = 2u |s_i - top| (the difference and its scale) + 2u; both sums
// by sum_error(n), so that out errs by Σ p_i E_i |v_i - out| + sum_error(n) (Σ p_i |v_i| + |out|) + 3u |out|, then is
// rounded; lse by Σ p_i E_i + sum_error(n) + 3u (ln n + |lse|).
#pragma once
#include <fulmen/ops/merge_state.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

struct MergedValues {
  Values out, lse;
};

namespace detail {

// v[i] and s[i] of one element's states.
struct MergedState {
  double s;
  std::vector<double> v;
};

inline void merge_one(const std::vector<MergedState>& states, int64_t head_dim, LogBase base, DType t, Bounded* out,
                      Bounded* lse) {
  constexpr double u = kUnit, ln2 = 0.69314718055994530942;
  const double to_e = base == LogBase::k2 ? ln2 : 1, n = double(states.size());
  double top = -INFINITY, sum = 0, spread = 0;
  for (const MergedState& x : states) top = std::max(top, x.s);
  if (top == -INFINITY) {
    for (int64_t c = 0; c < head_dim; ++c) out[c] = {0, 0};
    *lse = {-INFINITY, 0};
    return;
  }
  std::vector<double> p, error;
  for (const MergedState& x : states) {
    p.push_back(std::exp((x.s - top) * to_e));
    error.push_back(x.s == -INFINITY ? 0 : 3 * u * (top - x.s) * to_e + 2 * u);
    sum += p.back();
  }
  for (size_t i = 0; i < p.size(); ++i) spread += (p[i] /= sum) * error[i];
  for (int64_t c = 0; c < head_dim; ++c) {
    double value = 0, magnitude = 0, bound = 0;
    for (size_t i = 0; i < p.size(); ++i)
      if (p[i] > 0) value += p[i] * states[i].v[size_t(c)], magnitude += p[i] * std::abs(states[i].v[size_t(c)]);
    for (size_t i = 0; i < p.size(); ++i)
      if (p[i] > 0) bound += p[i] * error[i] * std::abs(states[i].v[size_t(c)] - value);
    bound += sum_error(n) * (magnitude + std::abs(value)) + 3 * u * magnitude;
    out[c] = rounded_to({value, bound}, t);
  }
  const double natural = top * to_e + std::log(sum);
  *lse = rounded_to({natural / to_e, (spread + sum_error(n) + 3 * u * (std::log(n) + std::abs(natural))) / to_e},
                    DType::kF32);
}

}  // namespace detail

inline MergedValues merge_state(const MergeStateArgs& a) {
  const int64_t head_dim = a.out.shape[2], rows = a.s_a.num_elements();
  MergedValues r{Values(size_t(rows * head_dim)), Values(size_t(rows))};
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<detail::MergedState> states(2);
    for (int64_t i = 0; i < 2; ++i) {
      states[size_t(i)].s = element(i == 0 ? a.s_a : a.s_b, row);
      for (int64_t c = 0; c < head_dim; ++c)
        states[size_t(i)].v.push_back(element(i == 0 ? a.v_a : a.v_b, row * head_dim + c));
    }
    detail::merge_one(states, head_dim, a.lse_base, a.out.dtype, &r.out[size_t(row * head_dim)], &r.lse[size_t(row)]);
  }
  return r;
}

inline MergedValues merge_states(const MergeStatesArgs& a) {
  const int64_t num_states = a.s.shape[1], heads = a.s.shape[2], head_dim = a.out.shape[2];
  MergedValues r{Values(size_t(a.out.num_elements())), Values(size_t(a.lse.num_elements()))};
  for (int64_t row = 0; row < a.lse.num_elements(); ++row) {
    std::vector<detail::MergedState> states(static_cast<size_t>(num_states));
    for (int64_t i = 0; i < num_states; ++i) {
      const int64_t at = (row / heads * num_states + i) * heads + row % heads;
      states[size_t(i)].s = element(a.s, at);
      for (int64_t c = 0; c < head_dim; ++c) states[size_t(i)].v.push_back(element(a.v, at * head_dim + c));
    }
    detail::merge_one(states, head_dim, a.lse_base, a.out.dtype, &r.out[size_t(row * head_dim)], &r.lse[size_t(row)]);
  }
  return r;
}

}  // namespace fulmen::reference
