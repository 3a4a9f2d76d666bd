// SPDX-License-Identifier: Apache-2.0
// Sums and maxima over the lanes of a row. The order is fixed by the shape alone, so the same row gives the same bits.
#pragma once
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda {

struct Sum {
  __device__ __forceinline__ static float zero() { return 0; }
  __device__ __forceinline__ static float join(float a, float b) { return a + b; }
};
struct Max {
  __device__ __forceinline__ static float zero() { return -kInfinity; }
  __device__ __forceinline__ static float join(float a, float b) { return fmaxf(a, b); }
};

// Over groups of `lanes` neighbours of a warp; all 32 lanes call.
template <class Op>
__device__ __forceinline__ float reduce_warp(float x, int32_t lanes = 32) {
#pragma unroll
  for (int32_t mask = 16; mask > 0; mask /= 2)
    if (mask < lanes) x = Op::join(x, shuffle_xor(x, mask));
  return x;
}

// Reductions over one row of shape S. Every thread of the CTA calls, equally often. Two buffers in turn make one
// barrier per reduction enough: a buffer is written again only after the barrier that follows its last reader.
template <RowShape S>
struct RowReducer {
  static constexpr int32_t kWarps = S.lanes / 32, kSlots = S.lanes > 32 ? kWarps : 1;
  float (*scratch)[kSlots];  // [2][kSlots] in shared memory
  int32_t turn = 0;

  template <class Op>
  __device__ __forceinline__ float reduce(float x) {
    x = reduce_warp<Op>(x, S.lanes);
    if constexpr (S.lanes > 32) {
      const int32_t warp = warp_index(), lane = warp_lane();
      if (lane == 0) scratch[turn][warp] = x;
      sync_cta();
      x = reduce_warp<Op>(lane < kWarps ? scratch[turn][lane] : Op::zero());
      turn ^= 1;
    }
    return x;
  }
  __device__ __forceinline__ float sum(float x) { return reduce<Sum>(x); }
  __device__ __forceinline__ float max(float x) { return reduce<Max>(x); }
};

}  // namespace fulmen::cuda
