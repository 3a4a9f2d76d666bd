// SPDX-License-Identifier: Apache-2.0
// Every op of the CUDA backend: its rows for the registry, its families for packs and tools.
#pragma once
#include <vector>

#include "src/cuda/op.h"

namespace fulmen::cuda {

const std::vector<runtime::KernelRow>& rows();
const std::vector<Family>& families();

// The unit that a line of a list of keys names. Throws Error{kInvalidArgument} that names the op's field.
jit::Unit unit_from(std::string_view line);

}  // namespace fulmen::cuda
