// SPDX-License-Identifier: Apache-2.0
// The two lists of a mixed plan, apart.
#include <fulmen/attention/plan.h>

#include <algorithm>
#include <cstring>

namespace fulmen::attention {
namespace {

template <class T>
void append(std::vector<int32_t>& data, std::span<const T> records) {
  if (records.empty()) return;
  const size_t at = data.size();
  data.resize(at + records.size_bytes() / sizeof(int32_t));
  std::memcpy(data.data() + at, records.data(), records.size_bytes());
}

}  // namespace

PlanHeader list_of(const PlanHeader& header, PlanList list) {
  PlanHeader h = header;
  PlanConfig& c = h.config;
  const int32_t few_q = c.few_q;
  c.few_q = c.few_workers = 0;
  h.few_items = h.few_merges = h.few_slots = h.few_on_device = 0;
  if (few_q == 0 && list == PlanList::kMany) return header;
  if (list == PlanList::kFew) {
    h.num_items = header.few_items, h.num_merges = header.few_merges, h.num_slots = header.few_slots;
    h.on_device = header.few_on_device;
    c.tile_q = std::max(few_q, 1), c.num_workers = std::max(header.config.few_workers, 1);
    c.row_cost = 0, c.key_cost = 1;  // idle rows of a tile of few cost what busy ones do
  } else if (h.on_device == 0) {
    h.num_items -= header.few_items, h.num_merges -= header.few_merges, h.num_slots -= header.few_slots;
  }
  return h;
}

std::vector<PlanRequest> requests_of(const PlanConfig& c, std::span<const PlanRequest> requests, PlanList list) {
  std::vector<PlanRequest> all(requests.begin(), requests.end());
  for (PlanRequest& r : all)
    if ((int64_t(r.qo_len) * c.group_size() <= c.few_q) != (list == PlanList::kFew)) r.qo_len = 0;
  return all;
}

Plan list_of(const PlanView& plan, PlanList list) {
  Plan one{list_of(plan.header, list), {}};
  const PlanHeader &h = plan.header, &mine = one.header;
  const bool few = list == PlanList::kFew;
  const std::vector<PlanRequest> requests = requests_of(h.config, plan.requests(), list);
  append<PlanRequest>(one.data, requests);
  append(one.data, plan.items().subspan(size_t(few ? 0 : h.few_items), size_t(mine.num_items)));
  append(one.data, plan.merges().subspan(size_t(few ? 0 : h.few_merges), size_t(mine.num_merges)));
  if (few || h.few_slots == 0) return one;
  PlanItem* items = reinterpret_cast<PlanItem*>(one.data.data() + requests.size() * 3);
  PlanMerge* merges = reinterpret_cast<PlanMerge*>(items + mine.num_items);
  for (int32_t i = 0; i < mine.num_items; ++i)
    if (items[i].slot >= 0) items[i].slot -= h.few_slots;
  for (int32_t i = 0; i < mine.num_merges; ++i) merges[i].slot_begin -= h.few_slots;
  return one;
}

}  // namespace fulmen::attention
