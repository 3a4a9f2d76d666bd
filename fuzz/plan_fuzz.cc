// SPDX-License-Identifier: Apache-2.0
// Any lengths and any configuration: a plan covers every row and every key once, survives saving, and a damaged copy is
// refused or harmless.
#include <fulmen/attention/plan.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "fuzz/input.h"

namespace fulmen::fuzz {
namespace {

using namespace attention;

PlanConfig config_of(Input& in) {
  PlanConfig c;
  c.num_kv_heads = in.below(4);
  c.num_qo_heads = c.num_kv_heads * in.below(5) + in.below(20) / 19;
  c.num_workers = in.below(70);
  c.tile_q = in.below(3) == 0 ? in.take<int16_t>() : 1 << in.below(8);
  c.tile_kv = 1 << in.below(8);
  c.min_split_len = in.below(2) == 0 ? 1 : 256;
  c.window_left = in.below(3) == 0 ? in.take<int16_t>() : -1;
  c.causal = in.below(2);
  c.disable_split = in.below(4) == 0;
  c.fixed_split_len = in.below(4) == 0 ? in.take<int16_t>() : 0;
  return c;
}

// As long as numbers go, in few tiles.
void stretch(PlanConfig& c, std::vector<PlanRequest>& requests, Input& in) {
  c.tile_q = 1 << 16;
  c.num_kv_heads = std::min(c.num_kv_heads, 1), c.num_qo_heads = std::min(c.num_qo_heads, 9);
  if (in.below(2) == 0) c.min_split_len = in.take<int32_t>();
  if (in.below(2) == 0) c.window_left = in.take<int32_t>();
  if (in.below(2) == 0) c.fixed_split_len = in.take<int32_t>();
  for (PlanRequest& r : requests) {
    if (in.below(2) == 0) r.kv_len = in.take<int32_t>();
    if (in.below(8) == 0) r.qo_len = in.take<int32_t>() >> 4;
    if (in.below(16) == 0) r.qo_begin = in.take<int32_t>();
  }
}

std::vector<PlanRequest> requests_of(Input& in) {
  std::vector<PlanRequest> requests(size_t(in.below(9)));
  int32_t begin = 0;
  for (PlanRequest& r : requests) {
    r = {begin, in.below(40), in.below(8) == 0 ? in.take<int16_t>() : in.byte()};
    begin += r.qo_len;
  }
  return requests;
}

// Items of one tile touch each other and do not overlap; every row of every head belongs to a tile.
void expect_covered(const PlanView& plan) {
  std::map<std::tuple<int32_t, int32_t, int32_t>, std::vector<PlanItem>> tiles;
  for (const PlanItem& i : plan.items()) tiles[{i.request_idx, i.kv_head, i.row_begin}].push_back(i);
  int64_t rows = 0, expected = 0;
  for (const PlanRequest& r : plan.requests()) expected += int64_t(r.qo_len) * plan.header.config.num_qo_heads;
  for (auto& [tile, items] : tiles) {
    rows += int64_t(items[0].num_rows) * items[0].num_kv_heads;
    std::sort(items.begin(), items.end(), [](auto& a, auto& b) { return a.kv_begin < b.kv_begin; });
    for (size_t i = 1; i < items.size(); ++i) expect(items[i].kv_begin == items[i - 1].kv_end && items[i].slot >= 0);
  }
  expect(rows == expected);
}

}  // namespace
}  // namespace fulmen::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fulmen::fuzz;
  Input in{data, size};
  Plan plan;
  PlanConfig config = config_of(in);
  std::vector<PlanRequest> requests = requests_of(in);
  config.span_rows = in.below(10), config.span_heads = in.below(6);
  if (in.below(3) == 2) config.few_q = 1 << in.below(7), config.few_workers = in.below(9);
  if (in.below(8) == 7) stretch(config, requests, in);
  if (!accepts([&] { plan = make_plan(config, requests); })) return 0;
  accepts([&] { verify(plan.view()); }) ? void() : std::abort();
  expect_covered(plan.view());
  std::vector<int32_t> saved = save(plan);
  expect(save(load(saved)) == saved);
  if (saved.empty()) return 0;
  for (int32_t i = 0; i < 3; ++i) saved[in.take<uint16_t>() % saved.size()] = in.take<int32_t>();
  if (in.below(4) == 0) saved.resize(in.take<uint16_t>() % saved.size());
  accepts([&] { verify(load(saved).view()); });
  return 0;
}
