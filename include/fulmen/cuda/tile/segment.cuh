// SPDX-License-Identifier: Apache-2.0
// Which segment an item belongs to, from the segments' first items.
#pragma once
#include <fulmen/cuda/ids.h>
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

// The last s with first[s] <= item, of first[0 .. count); 0 if there is none. Empty segments are passed over.
__device__ __forceinline__ int64_t last_at_or_below(const IdVector& first, int64_t count, int64_t item) {
  int64_t low = 0, high = count;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (first[middle] <= item ? low : high) = middle;
  }
  return low;
}

}  // namespace fulmen::cuda
