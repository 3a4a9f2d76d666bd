// SPDX-License-Identifier: Apache-2.0
// append_paged_kv_cache: a warp copies a part of a token's keys and values, K.batch vectors per thread. They are on
// their way while the page table is asked where they belong. Launched by src/cuda/page.cc.
#pragma once
#include <fulmen/cuda/append_paged_kv_cache.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/ptx/memory.cuh>
#include <fulmen/cuda/ptx/warp.cuh>
#include <fulmen/cuda/tile/prefetch_tables.cuh>

namespace fulmen::cuda::append_paged_kv_cache {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using Vector = Bits<K.vec_bytes>;
  const int32_t warp = int32_t(blockIdx.x) * (kThreads / 32) + warp_index();  // the host keeps them below 2^31
  const int32_t token_index = p.parts.quotient(warp);
  const int64_t token = token_index;
  if (token >= p.nnz) return;
  const int32_t keys = p.key.vecs, total = keys + p.value.vecs;
  const int32_t first = (warp - token_index * p.parts.divisor) * 32 * K.batch + warp_lane();

  wait_for_predecessor();
  allow_successor();
  prefetch_tables(p.pages, warp);
  PageTable::Asked asked = p.pages.ask(token);
  Vector data[K.batch];
  int64_t to[K.batch];  // offset in the cache, without page and slot
#pragma unroll
  for (int32_t i = 0; i < K.batch; ++i) {
    const int32_t at = first + i * 32;
    const Side& side = at < keys ? p.key : p.value;
    const int32_t in_side = at < keys ? at : at - keys, head = side.vecs_per_head.quotient(in_side);
    const int64_t in_head = int64_t(in_side - head * side.vecs_per_head.divisor) * K.vec_bytes;
    to[i] = head * side.cache_head_stride + in_head;
    data[i] = Vector{};
    if (at < total)
      data[i] = load_stream<K.vec_bytes>(side.rows + token * side.token_stride + head * side.head_stride + in_head);
  }
  p.pages.find_pages(asked);
  const PageTable::Slot slot = p.pages.slot_of(asked);
  if (slot.page < 0) return;
#pragma unroll
  for (int32_t i = 0; i < K.batch; ++i) {
    const int32_t at = first + i * 32;
    const Side& side = at < keys ? p.key : p.value;
    if (at < total)
      store_stream<K.vec_bytes>(side.cache + slot.page * side.page_stride + slot.in_page * side.slot_stride + to[i],
                                data[i]);
  }
}

}  // namespace fulmen::cuda::append_paged_kv_cache
