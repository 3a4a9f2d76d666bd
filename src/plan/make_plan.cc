// SPDX-License-Identifier: Apache-2.0
// Lengths to work list. Tiles are cut first; then, only where whole tiles would leave workers idle, the longest ones
// are split along their keys, as little as brings the makespan within 1/16 of the ideal.
#include <fulmen/attention/plan.h>
#include <fulmen/core/error.h>
#include <fulmen/core/math.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>

namespace fulmen::attention {
namespace {

constexpr int32_t kMaxSplits = 64;     // of one tile, under fixed_split_len; a function of the request alone
constexpr int64_t kItemOverhead = 32;  // keys' worth of work that any item costs: packing, writing, a merge
constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();

struct Tile {
  int32_t request_idx, kv_head, num_kv_heads, row_begin, num_rows, kv_begin, kv_end;
  int32_t step = 0;   // > 0: split between workers each so many keys
  int32_t start = 0;  // where steps are counted from: 0, or just before kv_begin
  int64_t cost = 0;

  int32_t num_splits(int32_t at) const {
    return kv_end == kv_begin ? 1 : int32_t(math::ceil_div(kv_end - start, at) - (kv_begin - start) / at);
  }
};

template <class Work>  // Tile or PlanItem
int64_t cost_of(const PlanConfig& c, const Work& t, int64_t num_keys) {
  return (num_keys + kItemOverhead) * (c.key_cost + int64_t(t.num_rows) * c.row_cost) * t.num_kv_heads;
}

void check_config(const PlanConfig& c) {
  const auto positive = [](int64_t n, std::string_view name) { require(n >= 1, "plan", name, n, "1 or more"); };
  positive(c.num_kv_heads, "num_kv_heads");
  positive(c.num_qo_heads, "num_qo_heads");
  positive(c.num_workers, "num_workers");
  positive(c.tile_q, "tile_q");
  positive(c.tile_kv, "tile_kv");
  positive(c.min_split_len, "min_split_len");
  positive(c.key_cost, "key_cost");
  require(c.num_workers <= 1 << 20, "plan", "num_workers", c.num_workers, "at most 1048576");
  require(c.tile_q <= 1 << 16, "plan", "tile_q", c.tile_q, "at most 65536");
  require(c.row_cost >= 0, "plan", "row_cost", c.row_cost, "0 or more");
  require(c.window_left >= -1, "plan", "window_left", c.window_left, "-1 or more");
  require(c.fixed_split_len >= 0, "plan", "fixed_split_len", c.fixed_split_len, "0 or more");
  require(c.few_q >= 0 && c.few_q <= c.tile_q, "plan", "few_q", c.few_q, "from 0 to tile_q");
  require(c.few_workers >= (c.few_q > 0) && c.few_workers <= 1 << 20, "plan", "few_workers", c.few_workers,
          "1 to 1048576 where few_q is given");
  require(c.num_qo_heads % c.num_kv_heads == 0, "plan", "num_qo_heads", c.num_qo_heads, "a multiple of num_kv_heads");
}

void check_request(const PlanConfig& c, const PlanRequest& r, size_t index) {
  const std::string who = "request " + std::to_string(index);
  if (r.qo_begin < 0 || r.qo_len < 0 || int64_t(r.qo_begin) + r.qo_len > kIntMax)
    fail("plan", who, "has query rows " + std::to_string(r.qo_begin) + " + " + std::to_string(r.qo_len));
  if (r.kv_len < 0) fail("plan", who, "has kv_len " + std::to_string(r.kv_len));
  if (int64_t(r.qo_len) * c.group_size() > kIntMax) fail("plan", who, "has more than 2^31 packed query rows");
}

// Keys that some row of the tile may see.
void set_visible(const PlanConfig& c, const PlanRequest& r, Tile& t) {
  const int64_t offset = int64_t(r.kv_len) - r.qo_len;
  const int64_t first = offset + t.row_begin / c.group_size();
  const int64_t last = offset + (t.row_begin + t.num_rows - 1) / c.group_size();
  const int64_t end = c.causal ? std::clamp<int64_t>(last + 1, 0, r.kv_len) : r.kv_len;
  const int64_t begin = c.window_left < 0 ? 0 : std::clamp<int64_t>(first - c.window_left, 0, end);
  t.kv_begin = int32_t(begin);
  t.kv_end = int32_t(end);
}

// Under fixed_split_len the step is a function of the request's own length, so that its bits are.
int32_t fixed_step(const PlanConfig& c, int32_t kv_len) {
  int64_t step = c.fixed_split_len;
  while (step * kMaxSplits < kv_len) step *= 2;
  return int32_t(std::min(step, kIntMax));
}

// How many kv heads an item spans: as many as leave every worker something to do.
int32_t choose_span(const PlanConfig& c, std::span<const PlanRequest> requests) {
  int32_t span = std::clamp(c.span_heads, 1, c.num_kv_heads);
  const auto enough = [&] {
    int64_t parts = 0;
    for (const PlanRequest& r : requests) {
      if (r.qo_len == 0) continue;
      const int64_t rows = int64_t(r.qo_len) * c.group_size();
      const bool spans = rows <= c.span_rows;
      const int64_t step = c.fixed_split_len > 0 ? fixed_step(c, r.kv_len) : c.min_split_len;
      const int64_t splits = c.disable_split ? 1 : std::max<int64_t>(1, r.kv_len / step);
      parts += splits * math::ceil_div(rows, c.tile_q) * math::ceil_div(c.num_kv_heads, spans ? span : 1);
      if (parts >= 2 * int64_t(c.num_workers)) return true;
    }
    return false;
  };
  while (span > 1 && !enough()) span = (span + 1) / 2;
  return span;
}

std::vector<Tile> cut_tiles(const PlanConfig& c, std::span<const PlanRequest> requests) {
  int64_t count = 0;  // of tiles of one kv head
  for (const PlanRequest& r : requests) {
    count += math::ceil_div(int64_t(r.qo_len) * c.group_size(), c.tile_q);
    if (count * c.num_kv_heads > kIntMax / 9)  // at once: of all requests the product need not fit 64 bits
      fail("plan", "batch", "needs " + std::to_string(count * c.num_kv_heads) + " work items, more than a plan holds");
  }
  const int32_t span = choose_span(c, requests);
  std::vector<Tile> tiles;
  for (size_t i = 0; i < requests.size(); ++i) {
    const PlanRequest& r = requests[i];
    const int32_t num_rows = r.qo_len * c.group_size();
    for (int64_t row = 0; row < num_rows; row += c.tile_q) {
      Tile t{int32_t(i), 0, 1, int32_t(row), int32_t(std::min<int64_t>(c.tile_q, num_rows - row)), 0, 0};
      set_visible(c, r, t);
      for (; t.kv_head < c.num_kv_heads; t.kv_head += t.num_kv_heads) {
        t.num_kv_heads = num_rows <= c.span_rows ? std::min(span, c.num_kv_heads - t.kv_head) : 1;
        t.cost = cost_of(c, t, t.kv_end - t.kv_begin);
        tiles.push_back(t);
      }
    }
  }
  return tiles;
}

// The finish of the last worker when each takes the next item as soon as it is free. costs: in the order of the items.
int64_t simulate(const std::vector<int64_t>& costs, int32_t num_workers) {
  std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> free_at;
  int64_t finish = 0;
  for (int64_t cost : costs) {
    int64_t start = 0;
    if (int64_t(free_at.size()) >= num_workers) start = free_at.top(), free_at.pop();
    free_at.push(start + cost);
    finish = std::max(finish, start + cost);
  }
  return finish;
}

template <class F>
void for_splits(const Tile& t, int32_t step, F&& f) {
  int64_t begin = t.kv_begin;
  do {
    const int64_t end = std::min<int64_t>(t.kv_end, t.start + ((begin - t.start) / step + 1) * step);
    f(int32_t(begin), int32_t(end));
    begin = end;
  } while (begin < t.kv_end);
}

int64_t makespan_of(const PlanConfig& c, const std::vector<Tile>& tiles) {
  std::vector<int64_t> costs;
  costs.reserve(tiles.size());
  for (const Tile& t : tiles) {
    if (t.step == 0) {
      costs.push_back(t.cost);
      continue;
    }
    for_splits(t, t.step, [&](int32_t begin, int32_t end) { costs.push_back(cost_of(c, t, end - begin)); });
  }
  std::sort(costs.begin(), costs.end(), std::greater<>());
  return simulate(costs, c.num_workers);
}

// Splits tiles that cost more than `piece`, longest first (tiles are sorted), as far as slots go.
void choose_splits(const PlanConfig& c, std::span<const PlanRequest> requests, int64_t piece,
                   std::vector<Tile>& tiles) {
  int64_t slots_left = max_slots(c.num_workers);
  for (Tile& t : tiles) {
    t.step = 0;
    if (t.cost <= piece) break;  // all later ones are shorter
    const int64_t len = t.kv_end - t.kv_begin;
    const int64_t most = c.fixed_split_len > 0 ? kMaxSplits : std::max<int64_t>(1, len / c.min_split_len);
    const int64_t pieces = std::min(most, math::ceil_div(t.cost, piece));
    // Under fixed_split_len steps are those of all tiles; else pieces are alike behind a window too.
    t.start = c.fixed_split_len > 0 ? 0 : t.kv_begin / c.tile_kv * c.tile_kv;
    const int64_t aligned = math::ceil_div(math::ceil_div(t.kv_end - t.start, pieces), c.tile_kv) * c.tile_kv;
    const int32_t step = c.fixed_split_len > 0 ? fixed_step(c, requests[size_t(t.request_idx)].kv_len)
                                               : int32_t(std::min(std::max<int64_t>(aligned, 1), kIntMax));
    const int32_t num_splits = t.num_splits(step);
    if (num_splits < 2 || num_splits > slots_left) continue;
    t.step = step;
    slots_left -= num_splits;
  }
}

// Returns the makespan. Sorts tiles by cost, ties in the order of requests, so that plans are reproducible.
int64_t balance(const PlanConfig& c, std::span<const PlanRequest> requests, int64_t total, std::vector<Tile>& tiles) {
  std::stable_sort(tiles.begin(), tiles.end(), [](const Tile& a, const Tile& b) { return a.cost > b.cost; });
  const int64_t ideal = math::ceil_div(total, c.num_workers), good = ideal + ideal / 16;
  int64_t best = makespan_of(c, tiles);
  if (c.disable_split || best <= good || tiles.empty()) return best;
  std::vector<Tile> trial = tiles;
  for (int64_t parts = 1; parts <= 8 && best > good; parts *= 2) {
    for (Tile& t : trial) t.step = 0;
    choose_splits(c, requests, std::max<int64_t>(1, good / parts), trial);
    const int64_t makespan = makespan_of(c, trial);
    if (makespan < best - best / 64) tiles = trial, best = makespan;  // a split must earn its merge
  }
  return best;
}

// Tiles, the longest first, so that those that read much per product (of few rows) and those that multiply much run
// beside each other: both kinds in proportion to their costs. False where that would balance worse.
bool mix_kinds(const PlanConfig& c, int64_t makespan, std::vector<Tile>& tiles) {
  std::vector<Tile> kinds[2];
  int64_t totals[2] = {0, 0}, done[2] = {0, 0};
  for (const Tile& t : tiles) {
    const size_t kind = t.num_rows * 4 <= c.tile_q ? 1 : 0;
    kinds[kind].push_back(t), totals[kind] += t.cost;
  }
  if (std::min(totals[0], totals[1]) < (totals[0] + totals[1]) / 16) return false;
  std::vector<Tile> mixed;
  std::vector<int64_t> costs;
  size_t next[2] = {0, 0};
  while (mixed.size() < tiles.size()) {
    const bool few =
        next[0] == kinds[0].size() ||
        (next[1] < kinds[1].size() && double(done[1]) * double(totals[0]) < double(done[0]) * double(totals[1]));
    mixed.push_back(kinds[few][next[few]++]);
    done[few] += mixed.back().cost;
    costs.push_back(mixed.back().cost);
  }
  if (simulate(costs, c.num_workers) > makespan + makespan / 16) return false;
  tiles = std::move(mixed);
  return true;
}

template <class T>
void append(std::vector<int32_t>& data, const T& record) {
  const int32_t* words = reinterpret_cast<const int32_t*>(&record);
  data.insert(data.end(), words, words + sizeof(T) / sizeof(int32_t));
}

struct Lists {
  std::vector<PlanItem> items;
  std::vector<PlanMerge> merges;
  int32_t num_slots = 0;
};

// ordered: tiles are, and none is split.
Lists list_items(const PlanConfig& c, std::span<const PlanRequest> requests, const std::vector<Tile>& tiles,
                 bool ordered) {
  Lists lists;
  for (const Tile& t : tiles) {
    if (t.step == 0) {
      const int32_t fixed = c.fixed_split_len > 0 ? fixed_step(c, requests[size_t(t.request_idx)].kv_len) : 0;
      const bool folds = fixed > 0 && t.num_splits(fixed) > 1;
      lists.items.push_back({t.request_idx, t.kv_head, t.num_kv_heads, t.row_begin, t.num_rows, t.kv_begin, t.kv_end,
                             folds ? fixed : 0, -1});
      continue;
    }
    const int32_t first = lists.num_slots;
    for_splits(t, t.step, [&](int32_t begin, int32_t end) {
      lists.items.push_back(
          {t.request_idx, t.kv_head, t.num_kv_heads, t.row_begin, t.num_rows, begin, end, 0, lists.num_slots++});
    });
    lists.merges.push_back(
        {t.request_idx, t.kv_head, t.num_kv_heads, t.row_begin, t.num_rows, first, lists.num_slots - first});
  }
  if (ordered) return lists;
  std::stable_sort(lists.items.begin(), lists.items.end(), [&](const PlanItem& a, const PlanItem& b) {
    return cost_of(c, a, a.kv_end - a.kv_begin) > cost_of(c, b, b.kv_end - b.kv_begin);
  });
  return lists;
}

Plan make_list(const PlanConfig& config, std::span<const PlanRequest> requests) {
  Plan plan;
  PlanHeader& h = plan.header;
  h.config = config;
  for (const PlanRequest& r : requests) h.total_q = std::max(h.total_q, r.qo_begin + r.qo_len);
  std::vector<Tile> tiles = cut_tiles(config, requests);
  for (const Tile& t : tiles) h.total_cost += t.cost;
  h.makespan = balance(config, requests, h.total_cost, tiles);
  const bool split = std::any_of(tiles.begin(), tiles.end(), [](const Tile& t) { return t.step > 0; });
  const bool ordered = !split && config.row_cost > 0 && mix_kinds(config, h.makespan, tiles);
  const Lists lists = list_items(config, requests, tiles, ordered);
  h.batch_size = int32_t(requests.size());
  h.num_items = int32_t(lists.items.size());
  h.num_merges = int32_t(lists.merges.size());
  h.num_slots = lists.num_slots;
  plan.data.reserve(requests.size() * 3 + lists.items.size() * 9 + lists.merges.size() * 7);
  for (const PlanRequest& r : requests) append(plan.data, r);
  for (const PlanItem& i : lists.items) append(plan.data, i);
  for (const PlanMerge& m : lists.merges) append(plan.data, m);
  return plan;
}

// Items and merges of the second follow those of the first, their slots too.
Plan join(const PlanConfig& config, std::span<const PlanRequest> requests, const PlanView& few, const PlanView& many) {
  Plan plan;
  PlanHeader& h = plan.header;
  h = many.header, h.config = config;
  h.total_q = std::max(few.header.total_q, many.header.total_q);
  h.few_items = few.header.num_items, h.few_merges = few.header.num_merges, h.few_slots = few.header.num_slots;
  if (int64_t(h.few_items) + h.num_items > kIntMax / 9) fail("plan", "batch", "needs more items than a plan holds");
  h.num_items += h.few_items, h.num_merges += h.few_merges, h.num_slots += h.few_slots;
  for (const PlanRequest& r : requests) append(plan.data, r);
  for (const PlanItem& i : few.items()) append(plan.data, i);
  for (PlanItem i : many.items()) {
    if (i.slot >= 0) i.slot += h.few_slots;
    append(plan.data, i);
  }
  for (const PlanMerge& m : few.merges()) append(plan.data, m);
  for (PlanMerge m : many.merges()) m.slot_begin += h.few_slots, append(plan.data, m);
  return plan;
}

}  // namespace

Plan make_plan(const PlanConfig& config, std::span<const PlanRequest> requests) {
  check_config(config);
  if (requests.size() > size_t(kIntMax / 3)) fail("plan", "batch", "has more requests than a plan holds");
  for (size_t i = 0; i < requests.size(); ++i) check_request(config, requests[i], i);
  if (config.few_q == 0) return make_list(config, requests);
  PlanHeader header;
  header.config = config;
  const auto list = [&](PlanList which) {
    return make_list(list_of(header, which).config, requests_of(config, requests, which));
  };
  const Plan few = list(PlanList::kFew), many = list(PlanList::kMany);
  return join(config, requests, few.view(), many.view());
}

}  // namespace fulmen::attention
