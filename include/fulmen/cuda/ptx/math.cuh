// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

// Within one unit in the last place, without the call that an exact division costs; 0 for what is beyond 2^126.
__device__ __forceinline__ float reciprocal(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace fulmen::cuda
