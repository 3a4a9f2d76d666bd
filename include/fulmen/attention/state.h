// SPDX-License-Identifier: Apache-2.0
// The softmax state (m, d) of a set of keys, and the one way to combine two sets. o is the sum of weights times values
// relative to m: o = Σ exp2(s_j - m) v_j, d = Σ exp2(s_j - m), s in log2 units. The empty set is (-inf, 0) and neutral.
#pragma once
#include <fulmen/core/math.h>

namespace fulmen::attention {

inline constexpr float kInfinity = bit_cast<float>(0x7f800000u);  // NVRTC has no __builtin_inff

template <class F = float>
struct State {
  F m = -kInfinity;
  F d = 0;

  struct Factors {
    F keep, add;  // o = keep * o + add * o_b
  };
  FULMEN_FN Factors merge(State b) {
    if (b.d == F(0)) return {F(1), F(0)};  // also where both are empty: -inf - -inf would be NaN
    if (d == F(0)) {
      *this = b;
      return {F(0), F(1)};
    }
    const F top = m > b.m ? m : b.m;
    const F keep = top == m ? F(1) : math::exp2(m - top), add = top == b.m ? F(1) : math::exp2(b.m - top);
    m = top;
    d = d * keep + b.d * add;
    return {keep, add};
  }
  FULMEN_FN F lse_log2() const { return d == F(0) ? -kInfinity : m + math::log2(d); }  // NaN of a NaN
};

}  // namespace fulmen::attention
