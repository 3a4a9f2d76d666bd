// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_cluster.h"

#include <fulmen/attention/plan.h>
#include <fulmen/core/math.h>

#include <algorithm>
#include <bit>

#include "src/cuda/attention.h"

namespace fulmen::cuda {

using attention::AttentionCall, attention::PlanConfig, attention::PlanRequest;

namespace {

constexpr int32_t kWholeTiles = 0x7fffffff;  // as min_split_len: no tile is split between workers

// The largest size of which clusters for all tiles run at once. An SM holds one CTA of them, and clusters do not go
// round in a GPC: half of the SMs are sure to be of use, almost all by pairs.
int32_t size_for(const AttentionCall& call, const PlanConfig& c, int64_t num_tiles, const Device& device) {
  if (device.arch < 90 || num_tiles == 0) return 1;
  const auto key = attention_key(c.tile_q, call.dims.head_dim_qk, call.dims.head_dim_vo, call.args->q.dtype,
                                 call.args->k.dtype, device.max_shared_bytes, true);
  for (int32_t size = batch_attention::kMaxCluster; size > 1; size /= 2)
    if (num_tiles * size <= device.num_sms / (size > 2 ? 2 : 1) && key &&
        batch_attention::shared_bytes(*key, size) <= device.max_shared_bytes)
      return size;
  return 1;
}

PlanConfig with_clusters(PlanConfig c, int32_t size, const Device& device) {
  c.num_workers = device.num_sms / size, c.min_split_len = kWholeTiles;
  return c;
}

}  // namespace

int32_t small_tile(int64_t rows, int64_t num_heads, int32_t num_sms) {
  for (int32_t tile : {16, 32})  // as long as half of the SMs take all, which read as fast
    if (2 * math::ceil_div(rows, int64_t(tile)) * num_heads <= num_sms) return tile;
  return 0;
}

int32_t cluster_size(const PlanConfig& c, const Device& device) {
  if (c.min_split_len != kWholeTiles || device.arch < 90) return 1;
  const int32_t sms = device.num_sms / c.num_workers;  // none or many in a plan of another device's
  return int32_t(std::bit_floor(uint32_t(std::clamp(sms, 1, batch_attention::kMaxCluster))));
}

void share_tiles(const AttentionCall& call, const Device& device, PlanConfig& c) {
  int64_t num_tiles = 0;
  for (const PlanRequest& r : call.requests)
    num_tiles += math::ceil_div(int64_t(r.qo_len) * c.group_size(), int64_t(c.tile_q)) * c.num_kv_heads;
  const int32_t size = size_for(call, c, num_tiles, device);
  if (size == 1) return;
  const PlanConfig shared = with_clusters(c, size, device);
  const attention::PlanHeader mine = make_plan(shared, call.requests).header,
                              other = make_plan(c, call.requests).header;
  // In keys of one SM. Half of the SMs read as fast as all of them (docs/kernels/batch_attention_cuda.md).
  const int64_t least = 2 * mine.total_cost / device.num_sms, per_sm = std::max(1, c.num_workers / device.num_sms);
  if (std::max(least, mine.makespan / size) <= std::max(least, other.makespan * per_sm) * 17 / 16) c = shared;
}

void share_tiles(const AttentionCall& call, int64_t num_tiles, const Device& device, PlanConfig& c) {
  const int32_t size = size_for(call, c, num_tiles, device);
  // Of several requests one may be the longest by far: only pairs go round on all SMs, when its tiles are split.
  if (size == 1 || (size > 2 && call.dims.batch_size > 1)) return;
  if (num_tiles * size * 9 / 4 >= device.num_sms) c = with_clusters(c, size, device);
}

}  // namespace fulmen::cuda
