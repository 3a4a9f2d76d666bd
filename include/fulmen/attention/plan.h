// SPDX-License-Identifier: Apache-2.0
// The plan of a varlen attention: which worker does what. Lengths go in, a balanced work list comes out; a plan knows
// no pointer, no dtype and no device, so that it can be made once per batch shape, printed, saved and replayed.
//
//   tile    up to tile_q packed rows of a (request, kv head); packed row = query token * group_size + head in group
//   item    a tile and a range of its keys; where rows are few, of several kv heads; the longest come first
//   slot    where an item leaves a partial result (o, m, d per row) because others share its tile
//   merge   the slots of one tile, combined in the order of their keys
//
//   keys →    0        L       2L       3L                      An item without a slot that spans several splits of
//   tile 0    [item 0 → slot 0][item 1 → slot 1]  merge 0       length L folds them one after the other, exactly as a
//   tile 1    [item 2 .................]  out                   merge of slots would: bits depend on L alone, not on
//                                                               who did what.
#pragma once
#include <fulmen/attention/plan_records.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace fulmen::attention {

struct PlanConfig {
  int32_t num_qo_heads = 1, num_kv_heads = 1;
  int32_t num_workers = 1;      // threads or SMs to fill
  int32_t tile_q = 64;          // packed rows per tile; at least the kernel's smallest
  int32_t tile_kv = 64;         // KV splits begin at multiples of it
  int32_t min_split_len = 256;  // keys; a shorter split costs more than it gains
  int32_t span_rows = 0;        // requests of so few packed rows (decode) may span kv heads in one item ...
  int32_t span_heads = 1;       // ... so many at most; fewer where that would leave workers idle
  int32_t row_cost = 1;         // of one row and key, against ...
  int32_t key_cost = 8;         // ... of reading one key and value
  int32_t window_left = -1;
  int32_t causal = 0;  // 0 or 1; not bool, which a damaged file could give a third value
  int32_t disable_split = 0;
  int32_t fixed_split_len = 0;  // > 0: splits at multiples of it (of a power of two times it where that gives > 64)
  int32_t few_q = 0;            // > 0: requests of so few packed rows get tiles of it, in a list of their own ...
  int32_t few_workers = 0;      // ... for so many workers, which run beside the others, or ...
                                // ... without few_q: so many of num_workers begin beside another plan's
  int32_t group_size() const { return num_qo_heads / num_kv_heads; }
};

struct PlanHeader {
  static constexpr int32_t kMagic = 0x4e4c5046, kVersion = 2;  // "FPLN"
  int32_t magic = kMagic, version = kVersion;
  PlanConfig config;
  int32_t batch_size = 0, total_q = 0, num_items = 0, num_merges = 0, num_slots = 0;
  int32_t on_device = 0;  // > 0: the device makes the lists; counts are upper bounds per kv head, this of rows in slots
  int32_t few_items = 0, few_merges = 0, few_slots = 0;  // with few_q: of all, those of the first list
  int32_t few_on_device = 0;                             // as on_device, which is the second list's
  int64_t total_cost = 0, makespan = 0;  // cost units; makespan as if workers took items in order; of the second list
};

// One header, one buffer: requests, items, merges. The view is what kernels read; the plan owns.
struct PlanView {
  PlanHeader header;
  const int32_t* data = nullptr;
  std::span<const PlanRequest> requests() const { return slice<PlanRequest>(0, header.batch_size); }
  std::span<const PlanItem> items() const { return slice<PlanItem>(int64_t(header.batch_size) * 3, header.num_items); }
  std::span<const PlanMerge> merges() const {
    return slice<PlanMerge>(int64_t(header.batch_size) * 3 + int64_t(header.num_items) * 9, header.num_merges);
  }

 private:
  template <class T>
  std::span<const T> slice(int64_t offset, int32_t count) const {
    return {reinterpret_cast<const T*>(data + offset), size_t(count)};
  }
};
struct Plan {
  PlanHeader header;
  std::vector<int32_t> data;
  PlanView view() const { return {header, data.data()}; }
};

// Partial results that a plan for this many workers can need, whatever the batch.
constexpr int32_t max_slots(int32_t num_workers) { return num_workers < 4 ? 64 : 16 * num_workers; }

// One of a plan's two lists as a plan of its own, in which requests of the other have no rows; without few_q the second
// list is all. The header of a plan that the device makes has such a list too.
enum class PlanList { kFew, kMany };
PlanHeader list_of(const PlanHeader& header, PlanList list);
Plan list_of(const PlanView& plan, PlanList list);
// The requests as that list takes them.
std::vector<PlanRequest> requests_of(const PlanConfig& config, std::span<const PlanRequest> requests, PlanList list);

// Throws Error{kInvalidArgument} on lengths that no plan can hold; an empty batch is a plan without items.
Plan make_plan(const PlanConfig& config, std::span<const PlanRequest> requests);

// A plan as one array of int32, and back. load refuses what save did not write: every range is checked, so that a
// damaged file cannot make a kernel read outside its tensors.
std::vector<int32_t> save(const Plan& plan);
Plan load(std::span<const int32_t> saved);
void verify(const PlanView& plan);

std::string to_string(const PlanView& plan);  // one line of totals, one per item and merge
std::string to_svg(const PlanView& plan);     // one lane per worker, one box per item: how the load balances

}  // namespace fulmen::attention
