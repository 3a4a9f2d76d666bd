// SPDX-License-Identifier: Apache-2.0
// RoPE on the fly: rows that lie in shared memory are rotated by their positions, halves split, and rounded to the 16
// bits that the tensor cores take.
#pragma once
#include <fulmen/cuda/attention/products.cuh>
#include <fulmen/cuda/tile/angles.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::batch_attention {

// rows: swizzled, kChunks of 16 bytes each. position_of(row); thread of num_threads.
template <class T, int32_t kChunks, class Variant, class F>
__device__ __forceinline__ void rotate_rows(const ParamsOf<Variant>& p, uint32_t rows, int32_t num_rows, int32_t thread,
                                            int32_t num_threads, F position_of) {
  const int32_t pieces = p.rope_pairs / 4;  // of four pairs
#pragma unroll 1
  for (int32_t i = thread; i < num_rows * pieces; i += num_threads) {
    const int32_t row = i / pieces, low = i % pieces * 4, high = low + p.rope_pairs;
    const uint32_t low_at = rows + uint32_t(Swizzle<kChunks>::at(row, low / 8) + low % 8 * 2);
    const uint32_t high_at = rows + uint32_t(Swizzle<kChunks>::at(row, high / 8) + high % 8 * 2);
    float a[4], b[4];
    unpack<T, 4>(load_shared<8>(low_at), a);
    unpack<T, 4>(load_shared<8>(high_at), b);
    const int64_t position = position_of(row);
#pragma unroll
    for (int32_t k = 0; k < 4; ++k) {
      const SinCos angle = sin_cos_turns(uint32_t(uint64_t(position) * p.rope_turns[low + k] >> 32));
      const float turned = a[k] * angle.cos - b[k] * angle.sin;
      b[k] = fmaf(b[k], angle.cos, a[k] * angle.sin);
      a[k] = turned;
    }
    store_shared<8>(low_at, pack<T, 4>(a));
    store_shared<8>(high_at, pack<T, 4>(b));
  }
}

}  // namespace fulmen::cuda::batch_attention
