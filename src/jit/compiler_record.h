// SPDX-License-Identifier: Apache-2.0
// Which NVRTC a cache folder was filled with, as a small file beside the kernels, so that looking for one need not open
// the library (10 to 20 ms). It holds the version, the library's path, size and time, and what FULMEN_NVRTC said; where
// any of that has changed there is no record.
#pragma once
#include <string>

#include "src/jit/nvrtc.h"

namespace fulmen::jit {

// The version on record; empty: none that holds.
std::string recorded_compiler(const std::string& folder);
// Keeps it. A folder that cannot be written has none.
void record_compiler(const std::string& folder, const Nvrtc& compiler);

}  // namespace fulmen::jit
