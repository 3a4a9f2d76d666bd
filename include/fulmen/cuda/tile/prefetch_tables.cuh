// SPDX-License-Identifier: Apache-2.0
// Asks for a page table before anybody knows which of its lines are needed: its reads depend on one another, and each
// would wait for memory in turn.
#pragma once
#include <fulmen/cuda/page_table.h>
#include <fulmen/cuda/ptx/memory.cuh>
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda {

// Warp w of the grid brings the w-th 128 bytes of kv_indptr and kv_indices into L2; tables longer than the grid stay in
// memory, but then there is little to hide.
__device__ __forceinline__ void prefetch_tables(const PageTable& t, int32_t warp) {
  const IdVector& ids = warp_lane() == 0 ? t.kv_indices : t.kv_indptr;
  const int64_t count = warp_lane() == 0 ? t.num_kv_indices : t.batch_size + 1, at = int64_t(warp) * 128;
  if (warp_lane() < 2 && at < count << (ids.wide ? 3 : 2)) prefetch_to_l2(static_cast<const char*>(ids.data) + at);
}

}  // namespace fulmen::cuda
