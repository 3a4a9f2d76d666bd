// SPDX-License-Identifier: Apache-2.0
// sin and cos of angles in turns: a 32-bit integer is the fraction of a turn, so that reduction costs nothing.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

struct SinCos {
  float sin, cos;
};

// Of turns / 2^32 turns, |error| <= 2e-7: the nearest quarter turn is taken off in integers, two polynomials serve
// -π/4..π/4. The same polynomials as include/fulmen/cpu/rope_angles.h.
__device__ __forceinline__ SinCos sin_cos_turns(uint32_t turns) {
  const int32_t quarter = int32_t(turns + (1u << 29)) >> 30;
  const float r = float(int32_t(turns - (uint32_t(quarter) << 30))) * 1.46291808e-9f;  // π/2 · 2^-30
  const float z = r * r;
  const float s = fmaf(r * z, fmaf(z, fmaf(z, -1.9501822e-4f, 8.33201645e-3f), -0.166666502f), r);
  const float c = fmaf(z, fmaf(z, fmaf(z, fmaf(z, 2.43726791e-5f, -1.38865291e-3f), 4.16666132e-2f), -0.5f), 1.0f);
  const float up = quarter & 1 ? c : s, across = quarter & 1 ? s : c;
  return {quarter & 2 ? -up : up, (quarter + 1) & 2 ? -across : across};
}

}  // namespace fulmen::cuda
