// SPDX-License-Identifier: Apache-2.0
// Brings a kernel's parameters to the constants' cache.
#pragma once
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda {

// All at once: later each line of them would be waited for by itself.
template <class Params>
__device__ __forceinline__ void touch(const Params& p) {
  constexpr int32_t kLineWords = 16;
  const int32_t* words = reinterpret_cast<const int32_t*>(&p);
  int32_t bits = 0;
#pragma unroll
  for (int32_t i = 0; i < int32_t(sizeof p) / 4; i += kLineWords) bits |= words[i];
  forget(bits);
}

}  // namespace fulmen::cuda
