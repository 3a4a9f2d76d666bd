// SPDX-License-Identifier: Apache-2.0
// chain_speculative_sampling from its definition. Acceptance is exact but for one rounding of a product in double; the
// last token is judged like a sample (sample.h), the residual having one more rounding.
#pragma once
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/reference/sample.h>

namespace fulmen::reference {

struct ChainReference {
  int64_t emitted = 0, accepted = 0;
  bool bad_token = false;
  RankedRow last;  // what the token after the emitted ones is drawn from
  double last_u = 0;
};

inline RankedRow ranked_weights(const std::vector<double>& weights) {
  RankedRow r;
  double top = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (std::isnan(weights[i])) r.status = RowStatus::kNan;
    top = std::max(top, weights[i]);
    r.value.push_back(weights[i]), r.weight.push_back(std::max(0., weights[i])), r.error.push_back(0);
    if (weights[i] > 0) r.order.push_back(int64_t(i));
  }
  if (r.status == RowStatus::kOk && top == 0) r.status = RowStatus::kEmpty;
  std::stable_sort(r.order.begin(), r.order.end(),
                   [&](int64_t i, int64_t j) { return r.value[size_t(i)] > r.value[size_t(j)]; });
  r.least = r.most = int64_t(r.order.size());
  return r;
}

inline ChainReference chain(const ChainSpeculativeSamplingArgs& a, int64_t row) {
  const int64_t n = a.draft_probs.shape[1], vocab_size = a.target_probs.shape[2];
  const auto draft = [&](int64_t i, int64_t t) { return element(a.draft_probs, (row * n + i) * vocab_size + t); };
  const auto target = [&](int64_t i, int64_t t) {
    return element(a.target_probs, (row * (n + 1) + i) * vocab_size + t);
  };
  ChainReference ref;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t t = int64_t(element(a.draft_token_ids, row * n + i));
    const bool in_range = t >= 0 && t < vocab_size;
    ref.bad_token |= !in_range;
    const double u = uniform(random_block(a.random, row, i), 0);
    const bool passes = in_range && u * draft(i, t) < target(i, t);
    ref.accepted += passes;
    ref.emitted += passes && ref.emitted == i;
  }
  ref.last_u = uniform(random_block(a.random, row, ref.emitted), 1);
  std::vector<double> weights, plain;
  for (int64_t t = 0; t < vocab_size; ++t) {
    plain.push_back(target(ref.emitted, t));
    const double residual = ref.emitted == n ? 0 : plain.back() - draft(ref.emitted, t);
    weights.push_back(ref.emitted == n ? plain.back() : std::isnan(residual) ? residual : std::max(0., residual));
  }
  ref.last = ranked_weights(weights);
  if (ref.last.status == RowStatus::kEmpty) ref.last = ranked_weights(plain);
  return ref;
}

}  // namespace fulmen::reference
