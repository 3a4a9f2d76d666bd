// SPDX-License-Identifier: Apache-2.0
// The plan that the device makes, read back: a plan in every sense of attention/plan.h, balanced like the host's.
#include "src/cuda/attention_prepare.h"

#include <algorithm>
#include <map>
#include <memory>
#include <numeric>
#include <optional>
#include <queue>
#include <random>
#include <set>

#include "src/cuda/attention.h"
#include "src/cuda/attention_mixed.h"
#include "src/cuda/attention_plan.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

using namespace fulmen::attention;
using cuda::batch_attention::PlanOnDevice, cuda::batch_attention::Record;

class CudaAttentionPrepare : public OnGpu {};

struct Lengths {
  std::vector<std::pair<int32_t, int32_t>> lens;  // (qo_len, kv_len)
  int64_t num_kv_heads = 2, group = 4, head_dim = 64, page_size = 16;
  AttentionOptions options;
  bool uniform = false;  // no qo_indptr
  int32_t num_sms = 132;
  std::optional<PlanList> list = {};  // of a mixed plan, where these shapes have one
};

// Tables on the device, and the plan made of them there.
class Made {
 public:
  explicit Made(const Lengths& l) : lengths(l) {
    const int64_t batch = int64_t(l.lens.size());
    qo = Tensor(DType::kI32, {batch + 1}), kv = Tensor(DType::kI32, {batch + 1}), last = Tensor(DType::kI32, {batch});
    qo.set(0, 0), kv.set(0, 0);
    int64_t rows = 0, pages = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const auto [qo_len, kv_len] = l.lens[size_t(b)];
      requests.push_back({int32_t(rows), qo_len, kv_len});
      qo.set(b + 1, double(rows += qo_len)), kv.set(b + 1, double(pages += (kv_len + l.page_size - 1) / l.page_size));
      last.set(b, double(kv_len == 0 ? 0 : (kv_len - 1) % l.page_size + 1));
    }
    indices = Tensor(DType::kI32, {pages});
    AttentionArgs given;
    given.qo_indptr = put(qo), given.kv_indptr = put(kv);
    given.last_page_len = put(last), given.kv_indices = put(indices);
    if (l.uniform) given.qo_indptr = {};
    given.options = l.options;
    args = placeholder(given,
                       {.total_q = rows,
                        .num_qo_heads = l.num_kv_heads * l.group,
                        .num_kv_heads = l.num_kv_heads,
                        .head_dim_qk = l.head_dim,
                        .head_dim_vo = l.head_dim,
                        .page_size = l.page_size},
                       AttentionEntry::kBatchAttention);
    for (TensorView* t : {&args.q, &args.k, &args.v, &args.out}) t->dtype = half_dtype();
    args.k.shape[0] = args.v.shape[0] = 1 << 20;
    make();
  }

  Lengths lengths;
  std::vector<PlanRequest> requests;
  PlanHeader shape;  // what the plan may hold
  int64_t workspace_bytes = 0;
  Plan plan;                // with an item per kv head
  int32_t num_workers = 0;  // that begin
  int32_t few_q = 0;        // > 0: the list is that of few rows
  int32_t other_tile = 1, other_ctas = 1;

  double finish() const {  // of the last worker, longest item first, over the ideal
    std::priority_queue<int64_t, std::vector<int64_t>, std::greater<>> free_at;
    int64_t last_one = 0, total = 0;
    const PlanConfig& c = shape.config;
    for (const PlanItem& i : plan.view().items()) {
      const int64_t cost = (int64_t(i.kv_end) - i.kv_begin + 32) * (c.key_cost + int64_t(i.num_rows) * c.row_cost);
      int64_t start = 0;
      if (int64_t(free_at.size()) >= c.num_workers) start = free_at.top(), free_at.pop();
      free_at.push(start + cost);
      last_one = std::max(last_one, start + cost), total += cost;
    }
    return double(last_one);
  }

 private:
  // As docs/decisions/mixed_batches.md says.
  int32_t beginning_workers(int32_t more) const {
    const PlanConfig& c = shape.config;
    if (few_q == 0) return c.num_workers;
    double few = 0, many = 0;
    int32_t tiles = 0;
    for (const PlanRequest& r : all) {
      const double rows = double(r.qo_len) * double(lengths.group),
                   window = c.window_left < 0 ? 1e30 : c.window_left + 1;
      const double keys = c.causal ? std::max(1.0, r.kv_len - r.qo_len / 2.0) : r.kv_len;
      if (rows > few_q) many += rows * std::min(keys, window) * cuda::many_cost(2);
      if (rows > few_q) tiles += int32_t(std::ceil(rows / other_tile));
      if (rows > 0 && rows <= few_q) few += std::min(keys, window + r.qo_len);
    }
    if (many == 0) return c.num_workers;
    const double share = std::ceil(1.25 * lengths.num_sms * few / (few + many)) + more;
    return whole_rounds(std::clamp(int32_t(share), 1, c.num_workers), tiles * c.num_kv_heads);
  }
  // As few SMs for this list as spare the other a round that is not full, but no fewer than 3 of 5.
  int32_t whole_rounds(int32_t workers, int32_t items) const {
    const auto rounds = [&](int32_t sms) { return double(items) / (sms * other_ctas); };
    const double full = std::floor(rounds(lengths.num_sms - workers));
    if (full < 1 || full > 6) return workers;
    for (int32_t fewer = workers; 5 * fewer >= 3 * workers && fewer > 0; --fewer)
      if (rounds(lengths.num_sms - fewer) <= full) return fewer;
    return workers;
  }

  std::vector<PlanRequest> all;  // of both lists

  TensorView put(Tensor& t) { return *memory_.emplace_back(std::make_unique<GpuTensor>(t)); }

  void make() {
    AttentionCall call;
    call.args = &args;
    call.dims = {.batch_size = int64_t(requests.size()),
                 .total_q = args.q.shape[0],
                 .num_qo_heads = lengths.num_kv_heads * lengths.group,
                 .num_kv_heads = lengths.num_kv_heads,
                 .head_dim_qk = lengths.head_dim,
                 .head_dim_vo = lengths.head_dim,
                 .page_size = lengths.page_size};
    cuda::Device device = cuda::device(0);
    device.num_sms = lengths.num_sms;
    call.step = AttentionCall::kShape;
    shape.config = plan_config(args, call.dims);
    call.header = &shape;
    cuda::shape_plan(call, device, {.dependent_launch = lengths.list ? DependentLaunch::kOn : DependentLaunch::kOff});
    cuda::RowLimits rows;
    if (const PlanConfig whole = shape.config; whole.few_q > 0) {
      all = requests;
      if (*lengths.list == PlanList::kFew) few_q = whole.few_q;
      rows.other_tile = other_tile = whole.tile_q, rows.other_ctas = other_ctas = whole.num_workers / lengths.num_sms;
      *lengths.list == PlanList::kFew ? rows.most = whole.few_q : rows.least = whole.few_q + 1;
      shape = list_of(shape, *lengths.list), requests = requests_of(whole, requests, *lengths.list);
    }
    const auto key = cuda::planned_attention_key(call, shape.config, device);
    const cuda::AttentionWorkspace layout(shape, key);
    workspace_bytes = layout.bytes;
    const GpuMemory memory(size_t(layout.bytes));
    const std::vector<char> junk(size_t(layout.plan_bytes) + cuda::kWorkspaceAlign, '\x55');
    gpu_copy(memory.data(), junk.data(), junk.size());
    const PlanView view{shape, nullptr};
    call.plan = &view;
    char* base = cuda::aligned(memory.data());
    cuda::launch_planner(call, key, {base}, rows, device, {});
    std::vector<char> image(size_t(layout.plan_bytes));
    gpu_copy(image.data(), base, image.size());
    read(image.data(), layout);
  }

  template <class T>
  static void append(std::vector<int32_t>& data, const T& x) {
    const auto* words = reinterpret_cast<const int32_t*>(&x);
    data.insert(data.end(), words, words + sizeof x / 4);
  }

  void read(const char* image, const cuda::AttentionWorkspace& layout) {
    PlanOnDevice head;
    std::memcpy(&head, image, sizeof head);
    const std::set<int32_t> may{beginning_workers(0), beginning_workers(-1), beginning_workers(1)};  // sums of floats
    EXPECT_TRUE(may.contains(head.num_workers)) << head.num_workers << " for " << *may.begin();
    num_workers = head.num_workers;
    EXPECT_EQ(head.next, 0u);
    const int32_t heads = int32_t(lengths.num_kv_heads), num_records = head.num_items / heads;
    ASSERT_LE(num_records, shape.num_items);
    PlanHeader& h = plan.header;
    h = shape, h.on_device = 0, h.num_items = head.num_items, h.num_merges = 0, h.num_slots = shape.num_slots * heads;
    for (const PlanRequest& r : requests) append(plan.data, r);
    const auto* records = reinterpret_cast<const Record*>(image + cuda::batch_attention::kRecords);
    const auto* merge_of_slot = reinterpret_cast<const int32_t*>(image + layout.head.merge_of_slot);
    std::map<int32_t, int32_t> merges;  // index -> slots seen
    for (int32_t i = 0; i < num_records; ++i) {
      Record r = records[i];
      const PlanRequest& want = requests[size_t(r.plan.request_idx)];
      EXPECT_EQ(r.request.qo_begin, want.qo_begin);
      EXPECT_EQ(r.request.qo_len, want.qo_len);
      EXPECT_EQ(r.request.kv_len, want.kv_len);
      if (r.plan.slot >= 0) ++merges[merge_of_slot[r.plan.slot]];
      const int32_t slot = r.plan.slot;
      for (int32_t head_idx = 0; head_idx < heads; ++head_idx) {
        r.plan.kv_head = head_idx;
        if (slot >= 0) r.plan.slot = slot + head_idx * shape.num_slots;
        append(plan.data, r.plan);
      }
    }
    for (const auto& [index, count] : merges) {
      PlanMerge m = reinterpret_cast<const PlanMerge*>(image + layout.head.merges)[index];
      EXPECT_EQ(m.num_slots, count);
      for (int32_t head_idx = 0; head_idx < heads; ++head_idx, ++h.num_merges) {
        m.kv_head = head_idx;
        append(plan.data, m);
        m.slot_begin += shape.num_slots;
      }
    }
    for (int64_t i = 0; i < int64_t(shape.num_merges) * heads; ++i)
      EXPECT_EQ(reinterpret_cast<const int32_t*>(image + layout.head.arrivals)[i], 0);
  }

  AttentionArgs args;
  Tensor qo, kv, last, indices;
  std::vector<std::unique_ptr<GpuTensor>> memory_;
};

// The keys of each tile, whole, and the boundaries of its splits.
using Tiles = std::map<std::tuple<int32_t, int32_t, int32_t>, std::pair<int32_t, std::vector<int32_t>>>;
Tiles tiles_of(const PlanView& p) {
  Tiles tiles;
  for (const PlanItem& i : p.items()) {
    auto& [rows, bounds] = tiles[{i.request_idx, i.kv_head, i.row_begin}];
    rows = i.num_rows;
    bounds.push_back(i.kv_begin), bounds.push_back(i.kv_end);
  }
  for (auto& [who, tile] : tiles) std::sort(tile.second.begin(), tile.second.end());
  return tiles;
}

// Returns how much later than the host's plan this one is done; over 1: later.
double check(const Lengths& l) {
  const Made made(l);
  verify(made.plan.view());
  PlanConfig config = made.shape.config;
  const Plan host = make_plan(config, made.requests);
  const Tiles got = tiles_of(made.plan.view()), want = tiles_of(host.view());
  EXPECT_EQ(got.size(), want.size());
  for (const auto& [who, tile] : want) {
    const auto found = got.find(who);
    if (found == got.end()) return ADD_FAILURE() << "a tile is missing", 0;
    const std::vector<int32_t>& bounds = found->second.second;
    EXPECT_EQ(found->second.first, tile.first);
    EXPECT_EQ(bounds.front(), tile.second.front());
    EXPECT_EQ(bounds.back(), tile.second.back());
    for (size_t i = 1; i + 1 < bounds.size(); i += 2) EXPECT_EQ(bounds[i], bounds[i + 1]);
    const int32_t step = std::max(1, config.fixed_split_len);
    for (size_t i = 1; i + 1 < bounds.size(); i += 2) EXPECT_EQ(bounds[i] % step, 0);
  }
  return host.header.makespan == 0 ? 1 : made.finish() / double(host.header.makespan);
}

Lengths random_lengths(uint64_t seed) {
  std::mt19937_64 rng(seed);
  const auto pick = [&](int32_t low, int32_t high) { return std::uniform_int_distribution<int32_t>(low, high)(rng); };
  Lengths l;
  l.num_kv_heads = pick(1, 9), l.group = pick(1, 12), l.page_size = pick(1, 40);
  l.options.causal = pick(0, 1) == 1;
  l.options.window_left = pick(0, 3) == 0 ? pick(0, 900) : -1;
  l.options.disable_split = pick(0, 6) == 0;
  l.options.fixed_split_len = pick(0, 2) == 0 ? pick(16, 600) : 0;
  l.num_sms = pick(0, 1) == 0 ? 132 : pick(1, 40);
  l.uniform = pick(0, 2) == 0;
  const int32_t kind = pick(0, 3), same = pick(0, 5), batch = pick(0, 4) == 0 ? pick(0, 2000) : pick(1, 60);
  const int32_t longest = 1 << pick(4, kind == 0 ? 17 : 13);
  for (int32_t i = 0; i < batch; ++i) {
    const int32_t qo_len = l.uniform ? same : kind == 1 ? pick(0, 700) : pick(0, 3);
    l.lens.push_back({qo_len, pick(0, 6) == 0 ? 0 : kind == 2 ? longest : pick(1, longest)});
  }
  return l;
}

TEST_F(CudaAttentionPrepare, MakesPlansThatCoverEverythingOnce) {
  double worst = 0, sum = 0;
  const int32_t count = emulated() ? 60 : 2000;
  std::vector<int32_t> seeds(size_t(count), 0);
  std::iota(seeds.begin(), seeds.end(), 0);
  // Too few slots for all tiles of a cost, or for what slots of the kernel's own tiles would need; a window whose first
  // key is far from a multiple of the step.
  if (emulated()) seeds.insert(seeds.end(), {322, 415, 726, 988, 1298, 1521, 1646});
  for (int32_t seed : seeds) {
    SCOPED_TRACE(seed);
    const double ratio = check(random_lengths(uint64_t(seed)));
    worst = std::max(worst, ratio), sum += ratio;
    EXPECT_LE(ratio, 1.6);
    if (seed >= count) continue;
    Lengths lengths = random_lengths(uint64_t(seed));
    for (PlanList list : {PlanList::kFew, PlanList::kMany}) lengths.list = list, check(lengths);
  }
  std::printf("finish over the host plan's: mean %.3f, worst %.3f\n", sum / double(seeds.size()), worst);
}

TEST_F(CudaAttentionPrepare, BalancesUsualBatchesLikeTheHost) {
  const auto many = [](int32_t n, int32_t qo_len, int32_t kv_len) {
    return std::vector<std::pair<int32_t, int32_t>>(size_t(n), {qo_len, kv_len});
  };
  Lengths skew{.lens = many(63, 1, 1024), .num_kv_heads = 8, .uniform = true};
  skew.lens.push_back({1, 524288});
  Lengths mixed{.lens = many(128, 1, 4000), .num_kv_heads = 8};
  for (int32_t i = 0; i < 4; ++i) mixed.lens.push_back({1500, 1500 + 700 * i});
  mixed.options.causal = true;
  Lengths prefill{.lens = many(4, 4096, 4096), .num_kv_heads = 8};
  prefill.options.causal = true;
  Lengths few = mixed, rest = mixed;
  few.list = PlanList::kFew, rest.list = PlanList::kMany;
  const std::pair<const char*, Lengths> batches[] = {
      {"B1 kv1k", {.lens = many(1, 1, 1024), .num_kv_heads = 8, .uniform = true}},
      {"B1 kv32k", {.lens = many(1, 1, 32768), .num_kv_heads = 8, .uniform = true}},
      {"B16 kv8k", {.lens = many(16, 1, 8192), .num_kv_heads = 8, .uniform = true}},
      {"B17 kv8k", {.lens = many(17, 1, 8192), .num_kv_heads = 8, .uniform = true}},
      {"B64 kv8k", {.lens = many(64, 1, 8192), .num_kv_heads = 8, .group = 8, .uniform = true}},
      {"B256 kv1k", {.lens = many(256, 1, 1024), .num_kv_heads = 8, .group = 8, .uniform = true}},
      {"B1024 kv1k", {.lens = many(1024, 1, 1024), .num_kv_heads = 8, .group = 8, .uniform = true}},
      {"q4 B8 kv16k", {.lens = many(8, 4, 16384), .num_kv_heads = 8, .group = 8, .uniform = true}},
      {"skew", skew},
      {"mixed", mixed},
      {"few of it", few},
      {"many of it", rest},
      {"prefill", prefill}};
  for (const auto& [name, lengths] : batches) {
    SCOPED_TRACE(name);
    const double ratio = check(lengths);
    std::printf("%-12s finish over the host plan's %.3f\n", name, ratio);
    EXPECT_LE(ratio, 1.15);
  }
}

// More prefill, fewer workers begin with decode; without it all that there are.
TEST_F(CudaAttentionPrepare, ChoosesHowManyWorkersBeginWithFewRows) {
  Lengths l{.lens = std::vector<std::pair<int32_t, int32_t>>(64, {1, 4000}), .num_kv_heads = 8};
  l.options.causal = true, l.list = PlanList::kFew;
  for (int32_t i = 0; i < 4; ++i) l.lens.push_back({300, 400});
  const Made made(l);
  if (made.few_q == 0) GTEST_SKIP() << "this device has no plans of two lists";
  const int32_t some = made.num_workers;
  for (int32_t i = 64; i < 68; ++i) l.lens[size_t(i)] = {4000, 4000};
  const int32_t few = Made(l).num_workers;
  EXPECT_GT(few, 1);
  EXPECT_LT(few, some);
  // Whole rounds of the other list's items: 256 of them on 86 SMs are three, on the 76 of decode's share four.
  Lengths rounds{.lens = std::vector<std::pair<int32_t, int32_t>>(128, {1, 4096}), .num_kv_heads = 8};
  rounds.options.causal = true, rounds.list = PlanList::kFew, rounds.lens.push_back({2048, 8192});
  const Made whole(rounds);
  EXPECT_EQ(whole.other_tile == 256 ? whole.num_workers : 46, 132 - 86);
  l.options.window_left = 100;  // decode reads little of its keys
  EXPECT_LT(Made(l).num_workers, some);
}

// More than one CTA plans alone: of few long requests, of many short ones in shared memory and in the workspace.
TEST_F(CudaAttentionPrepare, ManyTilesArePlannedByACluster) {
  for (const auto& [batch, qo_len] : {std::pair{40, 1800}, {1500, 40}, {4300, 1}})
    for (bool uniform : {false, true}) {
      SCOPED_TRACE(std::to_string(batch) + " of " + std::to_string(qo_len) + (uniform ? " rows" : " rows or less"));
      Lengths l{.lens = {}, .num_kv_heads = 2, .group = 4, .uniform = uniform};
      std::mt19937 rng(7);
      const auto pick = [&](int32_t most) { return std::uniform_int_distribution<int32_t>(1, most)(rng); };
      for (int32_t i = 0; i < batch; ++i) l.lens.push_back({uniform ? qo_len : pick(qo_len), pick(3000)});
      l.lens[size_t(batch) / 2].second = 400000;
      EXPECT_LE(check(l), 1.6);
    }
}

// No batch makes the workspace grow beyond what its list of tiles needs.
TEST_F(CudaAttentionPrepare, TheWorkspaceIsBounded) {
  for (int64_t heads : {1, 8, 128})
    for (int64_t head_dim : {64, 128, 256})
      for (int32_t fixed : {0, 256}) {
        if (head_dim > 128 && cuda::device(0).max_shared_bytes < 160 << 10) continue;  // refused there
        Lengths l{.lens = {{1, 100}}, .num_kv_heads = heads, .group = 1, .head_dim = head_dim, .uniform = true};
        l.options.fixed_split_len = fixed;
        EXPECT_LE(Made(l).workspace_bytes, cuda::kDeviceWorkspace);
        l.lens.resize(emulated() ? 1700 : 70000, {1, 33});
        const Made made(l);
        EXPECT_LE(made.workspace_bytes, cuda::kDeviceWorkspace);
        verify(made.plan.view());
      }
}

}  // namespace
}  // namespace fulmen::testing
