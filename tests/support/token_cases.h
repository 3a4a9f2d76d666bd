// SPDX-License-Identifier: Apache-2.0
// What the tests of sampling, filtering and top-k share between the CPU and the GPU: the filters tried, and where a
// result differs from the reference.
#pragma once
#include <fulmen/reference/top_k.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/tokens.h"

namespace fulmen::testing {

inline constexpr TokenValues kBoth[] = {TokenValues::kProbs, TokenValues::kLogits};

// Filters from none to all of them, numbers that decide nothing included.
inline std::vector<TokenFilter> filters_to_sample(int64_t vocab_size) {
  std::vector<TokenFilter> all(1);
  for (int64_t k : {int64_t(1), int64_t(2), int64_t(40), vocab_size / 2 + 1, vocab_size, vocab_size + 5})
    all.push_back({.top_k = k});
  for (float p : {0.f, 0.1f, 0.5f, 0.9f, 0.999f}) all.push_back({.top_p = p});
  for (float m : {0.02f, 0.5f, 1.f}) all.push_back({.min_p = m});
  for (FilterOrder order : {FilterOrder::kTopKFirst, FilterOrder::kJoint})
    for (bool ties : {false, true})
      for (float m : {0.f, 0.1f}) {
        all.push_back({.top_k = 20, .top_p = 0.7f, .min_p = m, .order = order, .keep_ties = ties});
        all.push_back({.top_k = vocab_size / 2 + 1, .top_p = 0.95f, .min_p = m, .order = order, .keep_ties = ties});
      }
  return all;
}

inline std::string name_of_filter(const TokenFilter& f) {
  return "top_k " + std::to_string(f.top_k) + " top_p " + std::to_string(f.top_p) + " min_p " +
         std::to_string(f.min_p) + (f.order == FilterOrder::kJoint ? " joint" : "") + (f.keep_ties ? " ties" : "");
}

// The same for ops that write what is kept.
inline std::vector<TokenFilter> filters_to_apply(int64_t vocab_size) {
  std::vector<TokenFilter> all(1);
  for (bool ties : {false, true}) {
    for (int64_t k : {int64_t(1), int64_t(10), vocab_size / 3 + 1, vocab_size + 1})
      all.push_back({.top_k = k, .keep_ties = ties});
    for (float p : {0.f, 0.3f, 0.9f, 0.9999f}) all.push_back({.top_p = p, .keep_ties = ties});
    all.push_back({.min_p = 0.2f, .keep_ties = ties});
    for (FilterOrder order : {FilterOrder::kTopKFirst, FilterOrder::kJoint})
      all.push_back({.top_k = 30, .top_p = 0.8f, .min_p = 0.01f, .order = order, .keep_ties = ties});
  }
  return all;
}

// Where the outputs of top_k in host memory differ from the reference; empty: nowhere.
inline std::string top_k_difference(const TopKArgs& args) {
  const std::vector<int64_t> expected = reference::top_k(args);
  const int64_t k = args.values.shape[1], row_len = args.input.shape[1];
  for (int64_t i = 0; i < int64_t(expected.size()); ++i) {
    const double index = reference::element(args.indices, i), value = reference::element(args.values, i);
    const double source = reference::element(args.input, i / k * row_len + expected[size_t(i)]);
    if (index != double(expected[size_t(i)]) || (value != source && !(std::isnan(value) && std::isnan(source))))
      return "row " + std::to_string(i / k) + " place " + std::to_string(i % k) + " is " + std::to_string(index) +
             ", expected " + std::to_string(expected[size_t(i)]);
  }
  return "";
}

}  // namespace fulmen::testing
