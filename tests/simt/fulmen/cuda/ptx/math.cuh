// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {
inline float reciprocal(float x) { return 1 / x; }
}  // namespace fulmen::cuda
