// SPDX-License-Identifier: Apache-2.0
// While one CTA plans, the others bring to L2 what attention will ask for first, so that the time is not lost to the
// memory: page ids, and the first keys and values of as many tiles as attention has workers.
#pragma once
#include <fulmen/cuda/attention/prepare_tiles.cuh>

namespace fulmen::cuda::attention_prepare {

__device__ __forceinline__ void fetch_row(const char* row, int32_t num_bytes) {
#pragma unroll 1
  for (int32_t at = 0; at < num_bytes; at += kLine) prefetch_to_l2(row + at);
}

// Keys of a part of a tile, in whole steps (items.cuh's take_share).
__device__ __forceinline__ int64_t keys_of_part(const Ahead& a, int32_t kv_len) {
  const int32_t shift = a.part_shift + a.step_shift;
  return (int64_t(kv_len) + (1 << shift) - 1) >> shift << a.step_shift;
}

// Whoever is wrong about which tiles come first has read a few bytes too early.
template <Key K>
__device__ __forceinline__ void fetch_ahead(const Params& p) {
  const Ahead& a = p.ahead;
  const int32_t first = (int32_t(blockIdx.x) - 1) * K.threads + int32_t(threadIdx.x);
  const int32_t step = (int32_t(gridDim.x) - 1) * K.threads;
#pragma unroll 1
  for (int32_t i = first; i < a.num_tiles * a.keys.divisor; i += step) {
    const int32_t part = a.keys.quotient(i), tile = part >> a.part_shift;
    const int32_t request = a.heads.quotient(tile), head = a.heads.remainder(tile);
    if (request >= p.batch_size) continue;
    const int32_t kv_len = request_of(p, request).kv_len, num_parts = 1 << a.part_shift;
    const int64_t share = keys_of_part(a, kv_len), at = a.keys.remainder(i);
    const int64_t key_of_all = (part & (num_parts - 1)) * share + at;
    if (at >= share || key_of_all >= kv_len) continue;
    const int32_t key = int32_t(key_of_all);
    int64_t first_id = request * a.table_stride;
    if (a.table_stride == 0 && p.kv_indptr.data != nullptr) first_id = p.kv_indptr[request];
    const int64_t id = a.page_ids[first_id + a.page_size.quotient(key)];
    if (id < 0 || id >= a.num_pages) continue;
    const int32_t slot = a.page_size.remainder(key);
    fetch_row(a.k + id * a.k_page + slot * a.k_token + head * a.k_head, a.k_bytes);
    fetch_row(a.v + id * a.v_page + slot * a.v_token + head * a.v_head, a.v_bytes);
  }
}

}  // namespace fulmen::cuda::attention_prepare
