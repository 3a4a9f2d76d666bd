// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_prepare.h"

#include <fulmen/core/math.h>

#include <algorithm>
#include <bit>
#include <numeric>

#include "src/cuda/attention.h"
#include "src/cuda/attention_cluster.h"
#include "src/cuda/attention_mixed.h"
#include "src/cuda/attention_plan.h"
#include "src/cuda/ids.h"

namespace fulmen::cuda {
namespace {

using attention::AttentionCall, attention::PlanConfig, attention::PlanHeader;
using attention_prepare::Params;
using AttentionKey = batch_attention::Key;

int64_t group_of(const AttentionCall& call) { return call.dims.num_qo_heads / call.dims.num_kv_heads; }

// Tiles of rows that no batch of these shapes exceeds.
int64_t most_tiles(const AttentionCall& call, int64_t tile) {
  const int64_t batch = call.dims.batch_size, total_q = call.dims.total_q, group = group_of(call);
  if (batch == 0) return 0;
  if (!call.args->qo_indptr.defined()) return batch * math::ceil_div(total_q / batch * group, tile);
  // Rows come in groups, so that no request's last tile is emptier than this.
  const int64_t empty = tile - std::gcd(tile, group);
  return (total_q * group + std::min(batch, total_q) * empty) / tile;
}

// Slots for as many pieces as the workers may want, of as many rows as there is memory for: tiles of few rows need less
// than the kernel's tiles have.
// room: bytes of memory for this list.
void set_slots(const AttentionKey& key, int64_t room, PlanHeader& h) {
  constexpr int64_t kTables = int64_t(1) << 19, kLeastRows = 16;
  const int64_t heads = h.config.num_kv_heads, row_bytes = int64_t(key.d_vo) * 4 + 8;
  const int64_t rows = (room - AttentionWorkspace(h, key).bytes - kTables) / row_bytes / heads;
  int64_t most = std::min<int64_t>(attention::max_slots(h.config.num_workers) / heads, rows / kLeastRows);
  most = h.config.disable_split != 0 || rows / tile_q(key) < 2 || most < 2 ? 0 : std::min<int64_t>(most, 65535);
  h.num_slots = int32_t(most), h.num_merges = h.num_slots / 2;
  h.on_device = int32_t(std::clamp<int64_t>(rows, 1, std::max<int64_t>(1, most * tile_q(key))));
}

}  // namespace

int64_t likely_rows(const AttentionCall& call) {
  const int64_t batch = std::max<int64_t>(1, call.dims.batch_size), group = group_of(call);
  const int64_t rows = math::ceil_div(call.dims.total_q, batch) * group;
  if (!call.args->qo_indptr.defined() || call.dims.total_q <= batch) return rows;
  // Requests differ: some are longer. Where all rows together are few, tiles of 32 are at most twice as many as needed.
  return std::min(rows <= 32 ? 32 : 2 * rows, call.dims.total_q * group);
}

namespace {

void set_items(const AttentionKey& key, int64_t tiles, int64_t room, PlanHeader& h) {
  if (tiles > attention_prepare::kMaxTiles)
    throw Error(Code::kUnsupported, "batch_attention: " + std::to_string(tiles) +
                                        " tiles of queries, expected at most " +
                                        std::to_string(attention_prepare::kMaxTiles));
  h.num_items = int32_t(tiles);
  set_slots(key, room, h);
  h.num_items += h.num_slots;
}

}  // namespace

void shape_plan(const AttentionCall& call, const Device& device, const Context& context) {
  PlanHeader& h = *call.header;
  PlanConfig& c = h.config;
  h.on_device = 1;
  h.batch_size = int32_t(call.dims.batch_size), h.total_q = int32_t(call.dims.total_q);
  const TensorView& workspace = call.args->workspace;
  int64_t room = workspace.defined() ? std::min(workspace.num_elements(), kDeviceWorkspace) : kDeviceWorkspace;
  if (call.beside != nullptr && may_overlap(device, context) && shape_beside(call, device, c))
    return set_items(planned_attention_key(call, c, device), most_tiles(call, c.tile_q), room, h);
  const AttentionKey key = *choose_attention_key(call, device.info());
  set_costs(key, c);
  h.total_cost = likely_us(call, c);  // for who is planned beside it
  if (may_overlap(device, context) && shape_mixed(call, device, c)) {
    h.few_on_device = 1;
    PlanHeader few = list_of(h, attention::PlanList::kFew);
    set_items(planned_attention_key(call, few.config, device), std::min(h.batch_size, h.total_q), room / 4, few);
    h.few_items = few.num_items, h.few_slots = few.num_slots, h.few_merges = few.num_merges;
    h.few_on_device = few.on_device, room -= room / 4;
  }
  const int64_t tiles = most_tiles(call, c.tile_q);
  // As many tiles as SMs go round without a split; fewer are read as fast by two CTAs per SM, but for tiles of 32 rows.
  const int64_t whole = tiles * c.num_kv_heads;
  const bool few = key.warps_q == 1 && whole <= device.num_sms;
  const bool alone = few && (key.m_tiles == 2 || 8 * whole >= 7 * device.num_sms);
  c.num_workers = device.num_sms * (alone ? 1 : ctas_per_sm(key, device.max_shared_bytes));
  if (key.warps_q == 1) share_tiles(call, whole, device, c);
  set_items(key, tiles, room, h);
}

namespace {

void set_lengths(const AttentionArgs& a, const AttentionDims& d, Params& p) {
  p.qo_indptr = ids_of(a.qo_indptr), p.kv_indptr = ids_of(a.kv_indptr);
  p.last_page_len = ids_of(a.last_page_len), p.seq_lens = ids_of(a.seq_lens);
  p.mask_indptr = a.mask_indptr.defined() ? a.mask_indptr.as<const int32_t>() : nullptr;
  p.mask_bytes = a.custom_mask.defined() ? a.custom_mask.shape[0] : -1;
  p.page_size = int32_t(d.page_size), p.is_table = a.block_tables.defined();
  p.num_kv = !d.paged() ? a.k.shape[0] : p.is_table ? a.block_tables.shape[1] : a.kv_indices.shape[0];
  p.batch_size = int32_t(d.batch_size), p.total_q = int32_t(d.total_q);
  p.is_narrow = p.num_kv <= 0x7fffffff && !p.kv_indptr.wide && !p.last_page_len.wide && !p.seq_lens.wide;
  p.narrow_num_kv = int32_t(std::min<int64_t>(p.num_kv, 0x7fffffff));
}

// Decode of about as many tiles as there are workers, or more: each worker begins with a tile's first keys, and where
// requests are of one length, with those of the first requests. Where L2 is large.
void set_ahead(const AttentionCall& call, const PlanConfig& c, const Device& device, Params& p) {
  constexpr int64_t kBytes = 12 << 20;  // what memory delivers while a plan is made
  if (device.arch < 90) return;
  const AttentionArgs& a = *call.args;
  const bool is_decode = !a.qo_indptr.defined() && p.rows_per_request * c.group_size() <= c.tile_q;
  if (!is_decode || !call.dims.paged() || a.k.data == nullptr || c.window_left >= 0) return;
  const int64_t num_tiles = int64_t(p.batch_size) * c.num_kv_heads;
  if (8 * num_tiles < 7 * c.num_workers || cluster_size(c, device) > 1) return;
  batch_attention::Common caches{};
  set_caches(a, call.dims, caches);
  attention_prepare::Ahead& to = p.ahead;
  const int64_t first = c.few_workers > 0 ? c.few_workers : c.num_workers;
  to.num_tiles = int32_t(std::min<int64_t>(num_tiles, first)), to.heads = Divisor(c.num_kv_heads);
  to.k = caches.k, to.v = caches.v;
  to.k_page = caches.k_page, to.k_token = caches.k_token, to.k_head = caches.k_head;
  to.v_page = caches.v_page, to.v_token = caches.v_token, to.v_head = caches.v_head;
  to.k_bytes = int32_t(call.dims.head_dim_qk * size_of(a.k.dtype));
  to.v_bytes = int32_t(call.dims.head_dim_vo * size_of(a.v.dtype));
  to.page_ids = caches.page_ids, to.table_stride = caches.table_stride, to.num_pages = caches.num_pages;
  to.page_size = caches.page_size;
  to.keys = Divisor(int32_t(std::max<int64_t>(1, kBytes / (int64_t(to.num_tiles) * (to.k_bytes + to.v_bytes)))));
}

// Keys of a piece that pays for its merge where clusters already share what is shorter.
constexpr int32_t kLong = 1024;

attention_prepare::Key planner_for(int32_t tiles) {
  using namespace attention_prepare;
  if (tiles <= kFewThreads) return {kFewThreads, 1};
  return tiles <= kSomeThreads * kTilesPerThread ? Key{kSomeThreads, kTilesPerThread} : Key{};
}

Work<attention_prepare::Key, Params> work_of(const AttentionCall& call, const AttentionKey& key, const PlanPlace& place,
                                             const Device& device) {
  const PlanHeader& h = call.plan->header;
  const PlanConfig& c = h.config;
  AttentionWorkspace layout(h, key);
  if (place.results != nullptr) layout.separate(place.plan, place.results);
  Params p{};
  p.workspace = place.plan, p.head = layout.head, p.requests = layout.requests;
  set_lengths(*call.args, call.dims, p);
  p.group = Divisor(c.group_size());
  p.least_rows = 0, p.most_rows = 0x7fffffff;
  p.rows_per_request = p.batch_size == 0 ? 0 : p.total_q / p.batch_size;
  p.tiles_per_request = Divisor(std::max(1, int32_t(math::ceil_div(p.rows_per_request * c.group_size(), c.tile_q))));
  p.tile_shift = std::countr_zero(uint32_t(c.tile_q));
  const bool in_clusters = cluster_size(c, device) > 1;
  p.tile_q = c.tile_q, p.tile_kv = Divisor(c.tile_kv), p.min_split = Divisor(in_clusters ? kLong : c.min_split_len);
  p.row_cost = c.row_cost, p.key_cost = c.key_cost;
  p.window_left = c.window_left, p.causal = c.causal != 0;
  p.fixed_split_len = c.fixed_split_len;
  p.disable_split = c.disable_split != 0 || (in_clusters && p.batch_size == 1);
  p.num_kv_heads = c.num_kv_heads, p.num_workers = c.num_workers;
  p.max_records = h.num_items, p.max_slots = h.num_slots, p.max_merges = h.num_merges;
  p.max_tiles = h.num_items - h.num_slots;
  p.slot_room = h.on_device;
  const attention_prepare::Key planner = planner_for(p.max_tiles);
  if (planner.tiles > 0) set_ahead(call, c, device, p);
  const bool shares = p.max_tiles > attention_prepare::kTilesOfOne && device.arch >= 90;
  const uint32_t cluster = shares ? attention_prepare::kCtas : 1;
  return {.key = planner,
          .params = p,
          .shape = {.grid = p.ahead.num_tiles > 0 ? uint32_t(device.num_sms) : cluster,
                    .num_threads = uint32_t(num_threads(planner)),
                    .shared_bytes = uint32_t(sizeof(attention_prepare::Shared)),
                    .cluster = cluster}};
}

}  // namespace

bool must_make(attention::MadePlan* made, const void* workspace, const Device& device, const Context& context) {
  if (made == nullptr) return true;
  const CurrentContext current(device.primary);
  const uint64_t capture = capture_of(static_cast<driver::Stream>(context.stream));
  const bool is_known = capture != 0 || !made->was_captured;
  if (made->workspace == workspace && made->capture == capture && is_known) return false;
  made->workspace = workspace, made->capture = capture, made->was_captured |= capture != 0;
  return true;
}

void launch_planner(const AttentionCall& call, const AttentionKey& key, const PlanPlace& place, const RowLimits& rows,
                    const Device& device, const Context& context) {
  Work<attention_prepare::Key, Params> work = work_of(call, key, place, device);
  work.params.least_rows = rows.least, work.params.most_rows = rows.most;
  if (rows.most != RowLimits{}.most) {
    Params& p = work.params;
    p.many_cost = float(many_cost(size_of(call.args->k.dtype))), p.num_sms = device.num_sms;
    p.other_tile_shift = std::countr_zero(uint32_t(rows.other_tile)), p.other_ctas = rows.other_ctas;
  }
  run(AttentionPrepare::kName, work, device, context);
}

void prepare_planner(const AttentionCall& call, const AttentionKey& key, const Device& device) {
  prepare(AttentionPrepare::kName, work_of(call, key, {}, device), device);
}

}  // namespace fulmen::cuda
