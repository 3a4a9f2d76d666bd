// SPDX-License-Identifier: Apache-2.0
// From a run-time dtype to a C++ type: calls f(T()) for the T of `types` whose name it is. The op's schema has already
// refused every other dtype.
#pragma once
#include <fulmen/core/dtype.h>

namespace fulmen::cpu {

template <class... Ts, class F>
void for_dtype(DType dtype, F&& f) {
  (void)((dtype == dtype_of<Ts> ? (f(Ts()), true) : false) || ...);
}

}  // namespace fulmen::cpu
