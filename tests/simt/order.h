// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace fulmen::simt {

// In what order CTAs run and threads go on. FULMEN_SIMT_ORDER: forward, backward, or the seed of any order (1, as
// without): a warp goes as far as it gets, or a few steps, or is left out, so that it falls far behind others; copies
// happen when they are asked for or when they are awaited. Shows where a barrier is missing.
class Order {
 public:
  Order() {
    const char* given = std::getenv("FULMEN_SIMT_ORDER");
    const std::string order = given == nullptr ? "1" : given;
    backward_ = order == "backward", random_ = !backward_ && order != "forward";
    if (random_) rng_.seed(std::stoul(order));
  }
  // f(index of n) for those whose turn it is, all of them where it must be; again while it says that it moved.
  template <class F>
  void each(size_t n, bool all, F f) {
    if (!random_) {
      for (size_t i = 0; i < n; ++i) f(backward_ ? n - 1 - i : i);
      return;
    }
    if (order_.size() != n) order_.resize(n), std::iota(order_.begin(), order_.end(), size_t(0));
    std::shuffle(order_.begin(), order_.end(), rng_);
    for (size_t i : order_) {
      uint32_t steps = all || rng_() % 4 == 0 ? 1u << rng_() % 10 : 0;
      while (steps > 0 && f(i)) --steps;
    }
  }
  std::vector<uint32_t> of_ctas(uint32_t n, uint32_t step) {
    std::vector<uint32_t> first;
    for (uint32_t cta = 0; cta < n; cta += step) first.push_back(cta);
    if (backward_) std::reverse(first.begin(), first.end());
    if (random_) std::shuffle(first.begin(), first.end(), rng_);
    return first;
  }
  bool copies_early() { return random_ && rng_() % 2 == 0; }

 private:
  bool backward_ = false, random_ = false;
  std::mt19937 rng_;
  std::vector<size_t> order_;
};

}  // namespace fulmen::simt
