// SPDX-License-Identifier: Apache-2.0
// A plan as an array of int32 and back, trusting nothing that is read.
#include <fulmen/attention/plan.h>
#include <fulmen/core/error.h>

#include <cstring>
#include <type_traits>

namespace fulmen::attention {
namespace {

static_assert(std::is_trivially_copyable_v<PlanHeader> && std::has_unique_object_representations_v<PlanHeader>);
static_assert(sizeof(PlanRequest) == 12 && sizeof(PlanItem) == 36 && sizeof(PlanMerge) == 28);
constexpr int64_t kMostRows = int64_t(1) << 61;  // more than memory holds, and sums up to it fit 64 bits
constexpr size_t kHeaderWords = sizeof(PlanHeader) / sizeof(int32_t);

[[noreturn]] void bad(const char* what, int64_t index, const char* text) {
  fail("plan", std::string(what) + " " + std::to_string(index), text);
}

int64_t words_of(const PlanHeader& h) {
  return int64_t(h.batch_size) * 3 + int64_t(h.num_items) * 9 + int64_t(h.num_merges) * 7;
}

void verify_header(const PlanHeader& h) {
  const PlanConfig& c = h.config;
  if (h.magic != PlanHeader::kMagic) fail("plan", "header", "is not a plan's");
  require(h.version == PlanHeader::kVersion, "plan", "version", h.version, std::to_string(PlanHeader::kVersion));
  const bool heads = c.num_kv_heads >= 1 && c.num_qo_heads >= 1 && c.num_qo_heads % c.num_kv_heads == 0;
  const bool counts = h.batch_size >= 0 && h.total_q >= 0 && h.num_items >= 0 && h.num_merges >= 0 && h.num_slots >= 0;
  if (!heads || !counts || c.tile_q < 1 || c.tile_q > 1 << 16 || c.num_workers < 1 || c.num_workers > 1 << 20)
    fail("plan", "header", "holds numbers that no planner writes");
  if (h.on_device != 0) fail("plan", "header", "is of a plan that is made on a device, which holds no lists");
  const bool workers = c.few_workers >= (c.few_q > 0) && c.few_workers <= 1 << 20;
  const bool lists =
      c.few_q > 0 ? c.few_q <= c.tile_q : c.few_q == 0 && h.few_items == 0 && h.few_merges == 0 && h.few_slots == 0;
  const auto within = [](int32_t part, int32_t all) { return part >= 0 && part <= all; };
  if (!workers || !lists || !within(h.few_items, h.num_items) || !within(h.few_merges, h.num_merges) ||
      !within(h.few_slots, h.num_slots))
    fail("plan", "header", "holds lists that no planner writes");
  const int32_t few_slots = h.config.few_q > 0 ? max_slots(c.few_workers) : 0;
  require(h.few_slots <= few_slots, "plan", "few_slots", h.few_slots, "at most max_slots(few_workers)");
  require(h.num_slots - h.few_slots <= max_slots(c.num_workers), "plan", "num_slots", h.num_slots,
          "at most max_slots(num_workers)");
}

// What is in one list stays there: a request's rows, and its slots.
template <class T>
bool is_in_list(const PlanView& p, const T& t, int64_t index, int32_t num_few, int32_t first_slot, int32_t end_slot) {
  const PlanHeader& h = p.header;
  if (h.config.few_q == 0) return true;
  const bool few = index < num_few;
  const int64_t rows = int64_t(p.requests()[size_t(t.request_idx)].qo_len) * h.config.group_size();
  if (few != (rows <= h.config.few_q)) return false;
  return end_slot <= first_slot || (few ? end_slot <= h.few_slots : first_slot >= h.few_slots);
}

template <class T>
bool rows_fit(const PlanView& p, const T& t) {
  if (t.request_idx < 0 || t.request_idx >= p.header.batch_size) return false;
  const PlanConfig& c = p.header.config;
  const int64_t num_rows = int64_t(p.requests()[size_t(t.request_idx)].qo_len) * c.group_size();
  return t.kv_head >= 0 && t.num_kv_heads >= 1 && t.num_kv_heads <= c.num_kv_heads - t.kv_head && t.row_begin >= 0 &&
         t.num_rows >= 1 && t.num_rows <= c.tile_q && int64_t(t.row_begin) + t.num_rows <= num_rows;
}

}  // namespace

void verify(const PlanView& p) {
  verify_header(p.header);
  int64_t rows_due = 0, rows_done = 0, index = 0;
  for (const PlanRequest& r : p.requests()) {
    if (r.qo_begin < 0 || r.qo_len < 0 || int64_t(r.qo_begin) + r.qo_len > p.header.total_q || r.kv_len < 0)
      bad("request", index, "has lengths outside the batch");
    rows_due += int64_t(r.qo_len) * p.header.config.num_qo_heads;
    if (rows_due > kMostRows) bad("request", index, "brings more query rows than there can be");
    ++index;
  }
  std::vector<bool> written(size_t(p.header.num_slots)), read(size_t(p.header.num_slots));
  index = 0;
  for (const PlanItem& i : p.items()) {
    if (!rows_fit(p, i)) bad("item", index, "names rows outside its request");
    if (i.kv_begin < 0 || i.kv_end < i.kv_begin || i.kv_end > p.requests()[size_t(i.request_idx)].kv_len ||
        i.split_len < 0)
      bad("item", index, "names keys outside its request");
    if (i.slot < -1 || i.slot >= p.header.num_slots) bad("item", index, "names a slot that does not exist");
    if (!is_in_list(p, i, index, p.header.few_items, i.slot, i.slot < 0 ? i.slot : i.slot + 1))
      bad("item", index, "is in another list than its request or its slot");
    if (i.slot >= 0 && written[size_t(i.slot)]) bad("item", index, "writes a slot that another item writes");
    if (i.slot >= 0) written[size_t(i.slot)] = true;
    if (i.slot < 0) rows_done += int64_t(i.num_rows) * i.num_kv_heads;
    if (rows_done > rows_due) break;
    ++index;
  }
  index = 0;
  for (const PlanMerge& m : p.merges()) {
    if (!rows_fit(p, m)) bad("merge", index, "names rows outside its request");
    if (m.slot_begin < 0 || m.num_slots < 1 || m.num_slots > p.header.num_slots - m.slot_begin)
      bad("merge", index, "names slots that do not exist");
    if (!is_in_list(p, m, index, p.header.few_merges, m.slot_begin, m.slot_begin + m.num_slots))
      bad("merge", index, "is in another list than its request or its slots");
    for (int32_t s = m.slot_begin; s < m.slot_begin + m.num_slots; ++s) {
      if (!written[size_t(s)] || read[size_t(s)]) bad("merge", index, "reads a slot that is not its own");
      read[size_t(s)] = true;
    }
    rows_done += int64_t(m.num_rows) * m.num_kv_heads;
    if (rows_done > rows_due) break;
    ++index;
  }
  if (rows_done != rows_due) fail("plan", "items", "do not cover every query row once");
}

std::vector<int32_t> save(const Plan& plan) {
  std::vector<int32_t> out(kHeaderWords + plan.data.size());
  std::memcpy(out.data(), &plan.header, sizeof(PlanHeader));
  if (!plan.data.empty()) std::memcpy(out.data() + kHeaderWords, plan.data.data(), plan.data.size() * sizeof(int32_t));
  return out;
}

Plan load(std::span<const int32_t> saved) {
  Plan plan;
  if (saved.size() < kHeaderWords) fail("plan", "saved plan", "is shorter than its header");
  std::memcpy(static_cast<void*>(&plan.header), saved.data(), sizeof(PlanHeader));
  verify_header(plan.header);
  if (int64_t(saved.size() - kHeaderWords) != words_of(plan.header))
    fail("plan", "saved plan", "has another length than its header says");
  plan.data.assign(saved.begin() + kHeaderWords, saved.end());
  verify(plan.view());
  return plan;
}

}  // namespace fulmen::attention
