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

std::vector<char> plan_image(const attention::PlanView& plan, const AttentionWorkspace& workspace) {
  std::vector<char> image(size_t(workspace.upload_bytes), 0);
  const auto put = [&image](int64_t at, const auto& records) {
    if (!records.empty()) std::memcpy(image.data() + at, records.data(), records.size_bytes());
  };
  std::memcpy(image.data(), &workspace.head, sizeof workspace.head);
  Record* records = reinterpret_cast<Record*>(image.data() + batch_attention::kRecords);
  for (const PlanItem& item : plan.items()) *records++ = {item, plan.requests()[size_t(item.request_idx)]};
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
