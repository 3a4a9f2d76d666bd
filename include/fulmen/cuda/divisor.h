// SPDX-License-Identifier: Apache-2.0
// Division by a number that is known at launch: a high product and a shift instead of some twenty instructions.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::cuda {

struct Divisor {
  int32_t divisor = 1, shift = 0;
  uint32_t multiplier = 1;  // floor(2^32 (2^shift - divisor) / divisor) + 1

  Divisor() = default;
  explicit Divisor(int32_t d) : divisor(d) {  // 1 or more
    while (int64_t(1) << shift < d) ++shift;
    multiplier = uint32_t(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - uint64_t(d))) / uint64_t(d) + 1);
  }
  FULMEN_FN int32_t quotient(int32_t n) const {  // 0 or more
    return int32_t((uint32_t(uint64_t(uint32_t(n)) * multiplier >> 32) + uint32_t(n)) >> shift);
  }
  FULMEN_FN int32_t remainder(int32_t n) const { return n - quotient(n) * divisor; }
};

}  // namespace fulmen::cuda
