// SPDX-License-Identifier: Apache-2.0
// How many workers a list of few rows begins with, beside one of many (src/cuda/attention_lists.h): by the lengths of
// both, as the host chooses where it knows them (src/cuda/attention_mixed.cc).
#pragma once
#include <fulmen/cuda/attention/prepare_tiles.cuh>

namespace fulmen::cuda::attention_prepare {

// Keys that requests of few rows read; rows times keys of the others, in such keys, and their tiles.
struct Kinds {
  float few = 0, many = 0, tiles = 0;
  __device__ __forceinline__ void add(const Params& p, const Request& r) {
    const int32_t rows = r.qo_len * p.group.divisor;
    if (rows == 0) return;
    float keys = float(r.kv_len);
    if (p.causal) keys = fmaxf(1, keys - float(r.qo_len) / 2);
    const float window = p.window_left < 0 ? 3e38f : float(p.window_left) + 1;
    if (rows <= p.most_rows)
      few += fminf(keys, window + float(r.qo_len));
    else
      many += float(rows) * fminf(keys, window) * p.many_cost, tiles += float(((rows - 1) >> p.other_tile_shift) + 1);
  }
};

// All threads of the CTA call. In a fixed order: the same lengths give the same number.
template <Key K>
__device__ __forceinline__ int32_t beginning_workers(const Params& p) {
  if (p.many_cost == 0) return p.num_workers;
  Shared& s = shared();
  Kinds sum;
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < p.batch_size; i += K.threads)
    sum.add(p, any_request_of(p, i, numbers_of(p, i)));
#pragma unroll
  for (int32_t mask = 16; mask > 0; mask /= 2) {
    sum.few += shuffle_xor(sum.few, mask), sum.many += shuffle_xor(sum.many, mask);
    sum.tiles += shuffle_xor(sum.tiles, mask);
  }
  float* const own = s.kinds[warp_index()];
  if (warp_lane() == 0) own[0] = sum.few, own[1] = sum.many, own[2] = sum.tiles;
  sync_cta();
  sum = {};
  for (int32_t i = 0; i < K.threads / 32; ++i)
    sum.few += s.kinds[i][0], sum.many += s.kinds[i][1], sum.tiles += s.kinds[i][2];
  if (sum.many == 0) return p.num_workers;
  // Decode shall end a fifth before all is done, had every SM the same share of the work.
  const float share = ceilf(1.25f * float(p.num_sms) * sum.few / (sum.few + sum.many));
  const int32_t workers = math::max(1, int32_t(fminf(share, float(p.num_workers))));
  return whole_rounds(workers, int64_t(sum.tiles) * p.num_kv_heads, p.num_sms, p.other_ctas);
}

}  // namespace fulmen::cuda::attention_prepare
