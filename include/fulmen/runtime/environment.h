// SPDX-License-Identifier: Apache-2.0
// Variables of the environment that hold a number or a switch. Empty is as not set; anything else than what is asked
// for throws kInvalidArgument, with the variable's name and what it holds.
#pragma once

#include <cstdint>

namespace fulmen::runtime {

int64_t integer_of(const char* variable, int64_t least, int64_t most, int64_t otherwise);

// 1 or on, 0 or off.
bool switch_of(const char* variable, bool otherwise);

}  // namespace fulmen::runtime
