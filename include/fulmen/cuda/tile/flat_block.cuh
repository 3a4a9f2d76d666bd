// SPDX-License-Identifier: Apache-2.0
// Elementwise kernels number the vectors of all rows through and deal them to CTAs in blocks, so that any row length
// fills them: which vectors are this thread's.
#pragma once
#include <fulmen/cuda/row_tensor.h>
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

template <int32_t Vec, int32_t Count, int32_t Threads>
struct FlatBlock {
  int64_t row[Count];
  int32_t column[Count];  // first element
  bool inside[Count];

  // block: number of the CTA's block; num_vecs: over all rows.
  __device__ __forceinline__ FlatBlock(const RowCount& rows, int64_t num_vecs, int64_t block) {
    const uint32_t vecs_per_row = uint32_t(rows.n / Vec);
    const int64_t first = block * (Count * Threads), first_row = first / vecs_per_row;  // 64 bits once
    const uint32_t start = uint32_t(first - first_row * vecs_per_row);
#pragma unroll
    for (int32_t i = 0; i < Count; ++i) {
      const uint32_t offset = uint32_t(i * Threads) + threadIdx.x;
      const uint32_t at = start + offset, down = at / vecs_per_row;  // start < 2^31 and offset is small
      row[i] = first_row + down;
      column[i] = int32_t(at - down * vecs_per_row) * Vec;
      inside[i] = first + offset < num_vecs;
    }
  }
};

}  // namespace fulmen::cuda
