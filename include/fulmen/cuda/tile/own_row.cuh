// SPDX-License-Identifier: Apache-2.0
// Which part of which row a thread holds. A row has its lanes to itself and they do nothing else: rows on the way while
// others are computed are those of the SM's other CTAs, which beats a loop that loads ahead
// (docs/kernels/memory_bound.md).
#pragma once
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/row_tensor.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/reduce.cuh>

namespace fulmen::cuda {

template <RowShape S>
struct OwnRow {
  const RowCount& rows;
  int64_t row;   // 0 where there is none
  int32_t n;     // elements; 0 past the last row: nothing is loaded or stored, but reductions and barriers need all
  int32_t lane;  // of the row

  __device__ __forceinline__ explicit OwnRow(const RowCount& all) : rows(all) {
    const int32_t in_cta = S.lanes > 32 ? 0 : int32_t(threadIdx.x) / S.lanes;
    lane = int32_t(threadIdx.x) % S.lanes;
    row = int64_t(blockIdx.x) * S.rows_per_cta() + in_cta;
    n = row < all.num_rows ? all.n : 0;
    if (n == 0) row = 0;
  }
  template <class T>
  __device__ __forceinline__ T* of(const RowTensor& t) const {
    return rows.row_of<T>(t, row);
  }
};

}  // namespace fulmen::cuda
