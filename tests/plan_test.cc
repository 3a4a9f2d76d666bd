// SPDX-License-Identifier: Apache-2.0
// Properties of plans over random batches: every query row meets every key it may see exactly once, the load balances,
// memory is bounded by the workers, and what is saved is what is loaded.
#include <fulmen/attention/plan.h>
#include <fulmen/attention/variant.h>
#include <fulmen/core/error.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <map>
#include <random>

#include "tests/support/levels.h"

namespace fulmen::attention {
namespace {

using testing::error_of;

struct Batch {
  PlanConfig config;
  std::vector<PlanRequest> requests;
};

Batch random_batch(uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto pick = [&](int32_t low, int32_t high) { return std::uniform_int_distribution<int32_t>(low, high)(rng); };
  Batch b;
  PlanConfig& c = b.config;
  c.num_kv_heads = pick(1, 4);
  c.num_qo_heads = c.num_kv_heads * pick(1, 9);
  c.num_workers = pick(0, 3) == 0 ? pick(1, 200) : pick(1, 8);
  c.tile_q = pick(1, 100);
  c.tile_kv = 1 << pick(0, 7);
  c.min_split_len = pick(1, 300);
  c.window_left = pick(0, 2) == 0 ? pick(0, 500) : -1;
  c.span_rows = pick(0, 10), c.span_heads = pick(1, 5);
  c.causal = pick(0, 1);
  c.disable_split = pick(0, 5) == 0;
  c.fixed_split_len = pick(0, 2) == 0 ? pick(1, 600) : 0;
  int32_t at = pick(0, 3);
  const bool long_kv = pick(0, 1) == 0;
  for (int32_t n = pick(0, 12); n > 0; --n) {
    const int32_t qo_len = pick(0, 2) == 0 ? pick(0, 300) : pick(0, 3);
    b.requests.push_back({at, qo_len, pick(0, 4) == 0 ? 0 : pick(0, long_kv ? 20000 : 700)});
    at += qo_len;
  }
  return b;
}

KvRange visible(const PlanConfig& c, const PlanRequest& r, int32_t token) {
  const int64_t last = int64_t(r.kv_len) - r.qo_len + token;
  const int64_t end = c.causal ? std::clamp<int64_t>(last + 1, 0, r.kv_len) : r.kv_len;
  const int64_t begin = c.window_left < 0 ? 0 : std::clamp<int64_t>(last - c.window_left, 0, end);
  return {int32_t(begin), int32_t(end)};
}

// Item ranges of a tile are consecutive, and their union covers what each of its rows sees.
void expect_covered(const Batch& b, const PlanView& p) {
  std::map<std::tuple<int32_t, int32_t, int32_t>, std::vector<PlanItem>> tiles;
  for (const PlanItem& i : p.items()) tiles[{i.request_idx, i.kv_head, i.row_begin}].push_back(i);
  std::map<std::pair<int32_t, int32_t>, int64_t> rows;
  for (auto& [key, items] : tiles) {
    std::sort(items.begin(), items.end(), [](const auto& x, const auto& y) { return x.kv_begin < y.kv_begin; });
    for (int32_t h = 0; h < items[0].num_kv_heads; ++h)
      rows[{items[0].request_idx, items[0].kv_head + h}] += items[0].num_rows;
    for (size_t i = 1; i < items.size(); ++i) {
      EXPECT_EQ(items[i].kv_begin, items[i - 1].kv_end);
      EXPECT_EQ(items[i].slot, items[i - 1].slot + 1);  // slots are in the order of keys
      EXPECT_EQ(items[i].num_rows, items[0].num_rows);
    }
    for (const PlanItem& i : items) EXPECT_EQ(i.slot < 0, items.size() == 1);
    const PlanRequest& r = b.requests[size_t(items[0].request_idx)];
    const int32_t group = b.config.group_size(), first = items[0].row_begin;
    for (int32_t row = first; row < first + items[0].num_rows; ++row) {
      const KvRange seen = visible(b.config, r, row / group);
      if (seen.begin >= seen.end) continue;
      EXPECT_LE(items.front().kv_begin, seen.begin);
      EXPECT_GE(items.back().kv_end, seen.end);
    }
  }
  for (size_t i = 0; i < b.requests.size(); ++i)
    for (int32_t h = 0; h < b.config.num_kv_heads; ++h) {
      const int64_t got = rows.count({int32_t(i), h}) ? rows[{int32_t(i), h}] : 0;
      EXPECT_EQ(got, int64_t(b.requests[i].qo_len) * b.config.group_size());
    }
}

TEST(Plan, CoversEveryRowAndKeyOnce) {
  for (uint64_t seed = 0; seed < 600; ++seed) {
    SCOPED_TRACE(seed);
    const Batch b = random_batch(seed);
    const Plan plan = make_plan(b.config, b.requests);
    verify(plan.view());
    expect_covered(b, plan.view());
    EXPECT_LE(plan.header.num_slots, max_slots(b.config.num_workers));
    if (HasFailure()) break;
  }
}

// Two lists, each a plan of its own for its requests, whose items and merges the whole has one after the other.
TEST(Plan, AMixedPlanIsTwoPlans) {
  for (uint64_t seed = 0; seed < 400; ++seed) {
    SCOPED_TRACE(seed);
    Batch b = random_batch(seed);
    b.config.few_q = std::max(1, b.config.tile_q / int32_t(1 + seed % 5)), b.config.few_workers = 1 + int32_t(seed % 9);
    const Plan plan = make_plan(b.config, b.requests);
    verify(plan.view());
    expect_covered(b, plan.view());
    EXPECT_EQ(save(load(save(plan))), save(plan));
    for (PlanList list : {PlanList::kFew, PlanList::kMany}) {
      const Plan one = list_of(plan.view(), list);
      verify(one.view());
      const std::vector<PlanRequest> requests = requests_of(b.config, b.requests, list);
      EXPECT_EQ(one.data, make_plan(list_of(plan.header, list).config, requests).data);
      for (const PlanItem& i : one.view().items())
        EXPECT_EQ(int64_t(b.requests[size_t(i.request_idx)].qo_len) * b.config.group_size() <= b.config.few_q,
                  list == PlanList::kFew);
    }
    if (HasFailure()) break;
  }
}

TEST(Plan, LongestFirst) {
  const Batch b = random_batch(4);
  const Plan plan = make_plan(b.config, b.requests);
  int64_t last = INT64_MAX;
  for (const PlanItem& i : plan.view().items()) {
    const int64_t cost = (int64_t(i.kv_end) - i.kv_begin + 32) *
                         (b.config.key_cost + int64_t(i.num_rows) * b.config.row_cost) * i.num_kv_heads;
    EXPECT_LE(cost, last);
    last = cost;
  }
}

double balance(const Plan& p) {
  return double(p.header.total_cost) / p.header.config.num_workers / double(p.header.makespan);
}

TEST(Plan, SplitsOnlyWhereItFillsWorkers) {
  PlanConfig c{.num_qo_heads = 32, .num_kv_heads = 8, .num_workers = 2, .causal = 1};
  const std::vector<PlanRequest> even(8, {0, 1, 4096});
  EXPECT_EQ(make_plan(c, even).header.num_slots, 0);  // 64 equal tiles on 2 workers
  c.num_workers = 64;
  EXPECT_EQ(make_plan(c, even).header.num_slots, 0);
  const std::vector<PlanRequest> one{{0, 1, 32768}};
  const Plan split = make_plan(c, one);  // 8 tiles on 64 workers
  EXPECT_GE(split.header.num_items, 64);
  EXPECT_GT(balance(split), 0.9);
  c.disable_split = 1;
  EXPECT_EQ(make_plan(c, one).header.num_slots, 0);
  c.disable_split = 0;
  c.min_split_len = 100000;
  EXPECT_EQ(make_plan(c, one).header.num_slots, 0);
}

TEST(Plan, BalancesSkewedBatches) {  // 1 long request among short ones
  for (int32_t workers : {2, 3, 8, 16, 64, 132}) {
    PlanConfig c{.num_qo_heads = 32, .num_kv_heads = 8, .num_workers = workers, .causal = 1};
    std::vector<PlanRequest> requests{{0, 1, 131072}};
    for (int32_t i = 1; i < 32; ++i) requests.push_back({i, 1, 500 + 37 * i});
    EXPECT_GT(balance(make_plan(c, requests)), 0.85) << workers;
  }
}

// Where a request's keys are cut depends on its own lengths, not on the batch nor on the workers.
TEST(Plan, FixedSplitsAreTheRequestsOwn) {
  const auto cuts = [](const Plan& plan, int32_t request) {
    std::map<std::pair<int32_t, int32_t>, std::vector<int32_t>>
        ends;  // (head, row) → ends of the ranges that are folded
    for (const PlanItem& i : plan.view().items()) {
      if (i.request_idx != request) continue;
      auto& list = ends[{i.kv_head, i.row_begin}];
      for (int64_t at = i.kv_begin; i.split_len > 0 && (at / i.split_len + 1) * i.split_len < i.kv_end;)
        list.push_back(int32_t(at = (at / i.split_len + 1) * i.split_len));
      list.push_back(i.kv_end);
    }
    for (auto& [key, list] : ends) std::sort(list.begin(), list.end());
    return ends;
  };
  std::mt19937_64 rng(9);
  for (int32_t kv_len : {1, 255, 256, 257, 5000, 100000}) {
    PlanConfig c{.num_qo_heads = 8, .num_kv_heads = 2, .num_workers = 1, .fixed_split_len = 256};
    const std::vector<PlanRequest> alone{{0, 3, kv_len}};
    const auto expected = cuts(make_plan(c, alone), 0);
    for (int32_t workers : {1, 2, 7, 64}) {
      c.num_workers = workers;
      std::vector<PlanRequest> crowd{{0, 1, 9000}, {1, 3, kv_len}, {4, 40, 800}, {44, 1, 0}};
      EXPECT_EQ(cuts(make_plan(c, crowd), 1), expected);
      EXPECT_EQ(cuts(make_plan(c, alone), 0), expected);
    }
  }
}

TEST(Plan, SavesAndLoads) {
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const Batch b = random_batch(seed);
    const Plan plan = make_plan(b.config, b.requests);
    const std::vector<int32_t> saved = save(plan);
    const Plan loaded = load(saved);
    EXPECT_EQ(save(loaded), saved);
  }
}

// A damaged plan is refused, or is still a plan that stays inside its tensors.
TEST(Plan, LoadRefusesDamage) {
  Batch b = random_batch(11);
  b.config.few_q = std::min(b.config.tile_q, 8), b.config.few_workers = 3;
  const std::vector<int32_t> saved = save(make_plan(b.config, b.requests));
  std::mt19937_64 rng(3);
  int32_t refused = 0;
  for (int32_t i = 0; i < 4000; ++i) {
    std::vector<int32_t> bad = saved;
    int32_t& word = bad[rng() % std::min<size_t>(bad.size(), 200)];
    word = rng() % 2 ? int32_t(rng()) : word + int32_t(rng() % 7) - 3;
    try {
      verify(load(bad).view());
    } catch (const Error& e) {
      EXPECT_EQ(e.code, Code::kInvalidArgument);
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_NE(error_of([&] { load(std::span(saved).first(5)); }).find("shorter than its header"), std::string::npos);
  EXPECT_NE(error_of([&] { load(std::span(saved).first(saved.size() - 1)); }).find("another length"),
            std::string::npos);
}

// Numbers of rows whose sum is beyond 64 bits.
TEST(Plan, LoadRefusesMoreRowsThanThereCanBe) {
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();
  Plan plan{.header = {.config = {.num_qo_heads = kMost}, .batch_size = 3, .total_q = kMost}, .data = {}};
  for (int32_t i = 0; i < 3; ++i) plan.data.insert(plan.data.end(), {0, kMost, 8});
  EXPECT_NE(error_of([&] { load(save(plan)); }).find("more query rows than there can be"), std::string::npos);
}

TEST(Plan, RefusesWhatItCannotHold) {
  const std::vector<PlanRequest> ok{{0, 1, 8}}, negative{{0, 1, -8}}, huge{{0, 1 << 30, 8}, {1 << 30, 1 << 29, 8}};
  EXPECT_EQ(error_of([&] { make_plan({.num_workers = 0}, ok); }), "plan: num_workers is 0, expected 1 or more");
  EXPECT_EQ(error_of([&] { make_plan({.num_qo_heads = 3, .num_kv_heads = 2}, ok); }),
            "plan: num_qo_heads is 3, expected a multiple of num_kv_heads");
  EXPECT_EQ(error_of([&] { make_plan({}, negative); }), "plan: request 0 has kv_len -8");
  EXPECT_NE(
      error_of([&] { make_plan({.num_qo_heads = 64, .num_kv_heads = 64, .tile_q = 1}, huge); }).find("work items"),
      std::string::npos);
  constexpr int32_t kMost = std::numeric_limits<int32_t>::max();  // their product with the heads is beyond 64 bits
  const std::vector<PlanRequest> hugest(4, PlanRequest{0, kMost, 8});
  EXPECT_NE(error_of([&] {
              make_plan({.num_qo_heads = kMost, .num_kv_heads = kMost, .tile_q = 1}, hugest);
            }).find("work items"),
            std::string::npos);
}

TEST(Plan, ShowsItself) {
  const Batch b = random_batch(6);
  const Plan plan = make_plan(b.config, b.requests);
  const std::string text = to_string(plan.view()), svg = to_svg(plan.view());
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1 + plan.header.num_items + plan.header.num_merges);
  EXPECT_EQ(svg.rfind("<svg", 0), 0u);
  EXPECT_NE(svg.find("</svg>"), std::string::npos);
}

}  // namespace
}  // namespace fulmen::attention
