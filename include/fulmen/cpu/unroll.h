// SPDX-License-Identifier: Apache-2.0
// unroll<N>(f): f(index<0>) ... f(index<N - 1>), written out, so that arrays of F32 stay in registers at -O2 too.
#pragma once
#include <fulmen/cpu/level.h>

#include <type_traits>
#include <utility>

FULMEN_CPU_BEGIN

template <int kN, class F>
__attribute__((always_inline)) inline void unroll(F&& f) {
  [&]<int... kI>(std::integer_sequence<int, kI...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, kI>{}), ...);
  }
  (std::make_integer_sequence<int, kN>{});
}

FULMEN_CPU_END
