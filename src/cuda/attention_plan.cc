// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_plan.h"

#include <algorithm>
#include <cstring>

namespace fulmen::cuda {

using attention::PlanItem, attention::PlanMerge;
using batch_attention::Record, batch_attention::RowState;
static_assert(sizeof(batch_attention::PlanOnDevice) <= batch_attention::kRecords);
static_assert(batch_attention::kRecords % kWorkspaceAlign == 0);

AttentionWorkspace::AttentionWorkspace(const attention::PlanHeader& plan, const batch_attention::Key& key) {
  int64_t at = 0;
  const auto take = [&at](int64_t num_bytes) {
    const int64_t begin = at;
    at += (num_bytes + kWorkspaceAlign - 1) / kWorkspaceAlign * kWorkspaceAlign;
    return begin;
  };
  const int64_t heads = plan.on_device != 0 ? plan.config.num_kv_heads : 1;
  take(batch_attention::kRecords);
  take(std::max(plan.num_items, plan.config.num_workers) * int64_t(sizeof(Record)));
  head.num_items = plan.num_items, head.num_workers = plan.config.num_workers;
  head.slot_rows = tile_q(key);
  head.merges = take(plan.num_merges * int64_t(sizeof(PlanMerge)));
  head.merge_of_slot = take(plan.num_slots * int64_t(sizeof(int32_t)));
  head.arrivals = take(plan.num_merges * heads * int64_t(sizeof(uint32_t)));
  upload_bytes = at;
  if (plan.on_device != 0 && plan.batch_size > attention_prepare::kSharedRequests)
    requests = take(plan.batch_size * int64_t(sizeof(attention_prepare::Request)));
  plan_bytes = at;
  const int64_t rows = tile_q(key), row_bytes = key.d_vo * int64_t(sizeof(float));
  const int64_t totals = plan.config.fixed_split_len > 0 ? plan.config.num_workers : 0;
  int64_t slot_rows = plan.num_slots * rows;
  if (plan.on_device != 0 && slot_rows > 0) slot_rows = plan.on_device * heads;
  head.slot_states = take(slot_rows * int64_t(sizeof(RowState)));
  head.slot_outputs = take(slot_rows * row_bytes);
  head.totals = take(totals * rows * row_bytes);
  head.total_states = take(totals * rows * key.d_vo / 4 * int64_t(sizeof(RowState)));
  bytes = at + kWorkspaceAlign;
}

void AttentionWorkspace::separate(const char* plan, const char* results) {
  const int64_t by = int64_t(reinterpret_cast<uint64_t>(results) - reinterpret_cast<uint64_t>(plan)) - plan_bytes;
  for (int64_t* offset : {&head.slot_states, &head.slot_outputs, &head.totals, &head.total_states}) *offset += by;
}

namespace {

// Prefill tiles, the longest of all still first, but those of some heads before those of others, so that workers find
// in L2 the keys that another has read: sections of as many heads as leave 16 workers to each. The last section has two
// tiles for each worker, so that workers end with short ones, at about the same time. The plan's own order stays where
// no more heads than a section's are long, and where there are requests of few rows, which it has run beside the long
// ones.
std::vector<PlanItem> order_for_l2(const attention::PlanView& plan) {
  std::vector<PlanItem> items(plan.items().begin(), plan.items().end());
  const attention::PlanConfig& c = plan.header.config;
  constexpr int32_t kWorkersPerHead = 16, kLastTiles = 2, kFewRows = 32;
  if (c.tile_q < 64) return items;
  for (const attention::PlanRequest& r : plan.requests())
    if (r.qo_len > 0 && int64_t(r.qo_len) * c.group_size() <= kFewRows) return items;
  // Of each request's head, by its longest tile.
  std::vector<int32_t> rank(plan.requests().size() * size_t(c.num_kv_heads), -1);
  int32_t num_ranks = 0, num_long = 0;
  std::vector<std::pair<int32_t, PlanItem>> ranked;
  ranked.reserve(items.size());
  for (const PlanItem& item : items) {
    int32_t& mine = rank[size_t(item.request_idx) * size_t(c.num_kv_heads) + size_t(item.kv_head)];
    if (mine < 0) {
      mine = num_ranks++;
      num_long += 2 * int64_t(item.kv_end - item.kv_begin) >= items[0].kv_end - items[0].kv_begin;
    }
    ranked.emplace_back(mine, item);
  }
  const int32_t heads = std::max(c.num_workers / kWorkersPerHead, 1);
  if (num_long <= heads) return items;
  const int64_t for_last = int64_t(kLastTiles) * c.num_workers * num_ranks / int64_t(items.size());
  const int32_t last = int32_t(std::max<int64_t>(num_ranks - for_last, 0) / heads);
  for (auto& [section, item] : ranked) section = std::min(section / heads, last);
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  for (size_t i = 0; i < items.size(); ++i) items[i] = ranked[i].second;
  return items;
}

}  // namespace

std::vector<char> plan_image(const attention::PlanView& plan, const AttentionWorkspace& workspace) {
  std::vector<char> image(size_t(workspace.upload_bytes), 0);
  const auto put = [&image](int64_t at, const auto& records) {
    if (!records.empty()) std::memcpy(image.data() + at, records.data(), records.size_bytes());
  };
  std::memcpy(image.data(), &workspace.head, sizeof workspace.head);
  Record* records = reinterpret_cast<Record*>(image.data() + batch_attention::kRecords);
  for (const PlanItem& item : order_for_l2(plan)) *records++ = {item, plan.requests()[size_t(item.request_idx)]};
  put(workspace.head.merges, plan.merges());
  int32_t* merge_of_slot = reinterpret_cast<int32_t*>(image.data() + workspace.head.merge_of_slot);
  int32_t index = 0;
  for (const PlanMerge& m : plan.merges()) {
    for (int32_t i = 0; i < m.num_slots; ++i) merge_of_slot[m.slot_begin + i] = index;
    ++index;
  }
  return image;
}

}  // namespace fulmen::cuda
