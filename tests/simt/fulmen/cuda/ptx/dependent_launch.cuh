// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {
inline void wait_for_predecessor() {}
inline void allow_successor() {}
}  // namespace fulmen::cuda
