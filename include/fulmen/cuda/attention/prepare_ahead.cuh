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

// Whoever is wrong about which tiles come first has read a few bytes too early.
template <Key K>
__device__ __forceinline__ void fetch_ahead(const Params& p) {
  const Ahead& a = p.ahead;
  const int32_t first = (int32_t(blockIdx.x) - 1) * K.threads + int32_t(threadIdx.x);
  const int32_t step = (int32_t(gridDim.x) - 1) * K.threads;
#pragma unroll 1
  for (int32_t i = first; i < a.num_tiles * a.keys.divisor; i += step) {
    const int32_t tile = a.keys.quotient(i), key = a.keys.remainder(i);
    const int32_t request = a.heads.quotient(tile), head = a.heads.remainder(tile);
    if (request >= p.batch_size || key >= request_of(p, request).kv_len) continue;
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
