// SPDX-License-Identifier: Apache-2.0
// Reading what NVRTC and ptxas print.
#pragma once
#include <string>
#include <string_view>

#include "src/jit/entry.h"

namespace fulmen::jit {

Resources resources_of(std::string_view log);

// The log with its first error in front, and that error's context; notes and warnings after the errors are cut.
std::string first_errors(std::string_view log);

}  // namespace fulmen::jit
