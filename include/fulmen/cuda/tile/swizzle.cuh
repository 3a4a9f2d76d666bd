// SPDX-License-Identifier: Apache-2.0
// Rows of 16-byte chunks in shared memory, arranged so that eight rows' chunks of one column lie in different banks.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

// kChunks per row. A column's chunks of consecutive rows start 16 kChunks bytes apart, so they meet in a bank again
// after 8 / gcd(kChunks, 8) rows; an exclusive or with the number of such rounds moves them apart.
template <int32_t kChunks>
struct Swizzle {
  static constexpr int32_t kGcd = kChunks % 8 == 0 ? 8 : kChunks % 4 == 0 ? 4 : kChunks % 2 == 0 ? 2 : 1;
  __device__ __forceinline__ static int32_t turn(int32_t row) { return row / (8 / kGcd) % kGcd; }
  // In bytes.
  __device__ __forceinline__ static int32_t at(int32_t row, int32_t chunk) {
    return (row * kChunks + (chunk ^ turn(row))) * 16;
  }
  // Of a chunk, from the address `first` of chunk 0 of its row, which lies in rows aligned to 16 kGcd bytes.
  __device__ __forceinline__ static uint32_t from(uint32_t first, int32_t chunk) {
    return (first ^ uint32_t(chunk % kGcd * 16)) + uint32_t(chunk / kGcd * kGcd * 16);
  }
};

}  // namespace fulmen::cuda
