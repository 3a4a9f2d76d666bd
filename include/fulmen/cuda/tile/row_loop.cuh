// SPDX-License-Identifier: Apache-2.0
// A CTA's walk over rows: while a row is computed, the next one is on its way.
#pragma once
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/reduce.cuh>

namespace fulmen::cuda {

// Which part of which row a thread holds.
template <RowShape S>
__device__ __forceinline__ int32_t lane_of_row() {
  return int32_t(threadIdx.x) % S.lanes;
}

// load(State&, row), then body(State&, row), for this thread's rows; row -1 is past the last one: load nothing, store
// nothing, but reduce along, as the row's other lanes' warp mates or barriers wait. kAhead: the registers hold two
// rows.
template <RowShape S, bool kAhead, class State, class Load, class Body>
__device__ __forceinline__ void for_rows(int64_t num_rows, Load load, Body body) {
  const int64_t step = int64_t(gridDim.x) * S.rows_per_cta();
  const int32_t mine = S.lanes > 32 ? 0 : int32_t(threadIdx.x) / S.lanes;
  const auto clip = [&](int64_t row) { return row < num_rows ? row : int64_t(-1); };
  int64_t base = int64_t(blockIdx.x) * S.rows_per_cta();
  State next;
  load(next, clip(base + mine));
  for (; base < num_rows; base += step) {
    State now = next;
    if constexpr (kAhead) load(next, clip(base + step + mine));
    body(now, clip(base + mine));
    if constexpr (!kAhead) load(next, clip(base + step + mine));
  }
}

}  // namespace fulmen::cuda
