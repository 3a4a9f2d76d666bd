// SPDX-License-Identifier: Apache-2.0
// The architecture that device code is compiled for, as a constant for `if constexpr`. With core/portable.h the only
// header with preprocessor branches.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::cuda {
#if defined(__CUDA_ARCH__)
inline constexpr int32_t kArch = __CUDA_ARCH__ / 10;  // 10 * major + minor
#else
inline constexpr int32_t kArch = 0;  // the host pass of nvcc, which only parses
#endif
inline constexpr float kInfinity = bit_cast<float>(0x7f800000u);  // NVRTC has no <cmath> and no __builtin_inff
}  // namespace fulmen::cuda
