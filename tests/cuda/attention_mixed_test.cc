// SPDX-License-Identifier: Apache-2.0
// Plans of two lists, a launch for requests of few rows and one for the others beside it: against the oracle, on plans
// of the host's and on such that the device makes, of which any list may be empty.
#include <fulmen/attention/call.h>
#include <fulmen/ops/rmsnorm.h>

#include <algorithm>
#include <random>

#include "src/cuda/device.h"
#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"
#include "tests/support/pairwise.h"

namespace fulmen::testing {
namespace {

class CudaAttentionMixed : public OnGpu {};

struct Tiles {
  int32_t few = 16, many = 64, few_workers = 1;
};

attention::Plan plan_of(const AttentionCase& c, const Tiles& tiles) {
  attention::PlanConfig config{.num_qo_heads = int32_t(c.num_kv_heads * c.group),
                               .num_kv_heads = int32_t(c.num_kv_heads),
                               .num_workers = cuda::device(0).num_sms,
                               .tile_q = tiles.many,
                               .min_split_len = 64,
                               .window_left = c.options.window_left,
                               .causal = c.options.causal && !c.mask,
                               .disable_split = c.options.disable_split,
                               .few_q = tiles.few,
                               .few_workers = tiles.few_workers};
  std::vector<attention::PlanRequest> requests;
  int32_t begin = 0;
  for (const auto& [qo_len, kv_len] : c.lens) {
    requests.push_back({begin, int32_t(qo_len), int32_t(kv_len)});
    begin += int32_t(qo_len);
  }
  return attention::make_plan(config, requests);
}

TensorView bytes_of(const GpuMemory& memory) {
  TensorView t = view_of(reinterpret_cast<uint8_t*>(memory.data()), {int64_t(memory.num_bytes())});
  t.device_type = DeviceType::kCuda;
  return t;
}

void check(const AttentionCase& c, const Tiles& tiles, double* worst = nullptr) {
  SCOPED_TRACE(describe(c) + " in tiles of " + std::to_string(tiles.few) + " and " + std::to_string(tiles.many));
  AttentionProblem p(c);
  OnDevice d(p);
  attention::run_planned(plan_of(c, tiles).view(), d.args, AttentionEntry::kBatchAttention);
  d.fetch();
  const reference::AttentionValues want = reference::attention(p.args, reference::Products::kHalf);
  EXPECT_TRUE(within(p, want));
  if (worst != nullptr) *worst = std::max(*worst, std::max(ratios(p, want).out, ratios(p, want).lse));
}

// clang-format off
enum {
  kKv, kOut, kDim, kGroup, kHeads, kPage, kTable, kLayout, kOne, kLen, kCausal, kWindow, kCap, kMask, kSink, kRope,
  kSplit, kFew, kMany, kWorkers, kNum
};
// clang-format on

const std::vector<Lens> kMixes = {{{1, 500}, {60, 250}, {2, 0}, {1, 70}, {33, 130}},
                                  {{1, 300}, {2, 77}, {0, 5}},
                                  {{90, 250}, {40, 7}},
                                  {{0, 0}, {4, 9}}};

std::vector<std::pair<AttentionCase, Tiles>> cases() {
  std::vector<int32_t> counts(kNum, 2);
  counts[kGroup] = 4, counts[kPage] = 3, counts[kTable] = 4, counts[kWindow] = 3;
  counts[kLen] = int32_t(kMixes.size()), counts[kMany] = 3, counts[kWorkers] = 3;
  std::vector<std::pair<AttentionCase, Tiles>> all;
  for (const auto& row : pairwise(counts)) {
    const auto at = [&](int32_t i) { return size_t(row[size_t(i)]); };
    AttentionCase c;
    c.q_dtype = half_dtype(), c.kv_dtype = at(kKv) == 0 ? c.q_dtype : DType::kE4M3;
    c.out_dtype = at(kOut) == 0 ? c.q_dtype : DType::kF32;
    c.d_qk = c.d_vo = at(kDim) == 0 ? 128 : 64;
    c.group = std::vector<int64_t>{4, 1, 8, 3}[at(kGroup)], c.num_kv_heads = int64_t(at(kHeads)) + 1;
    c.page_size = std::vector<int64_t>{1, 3, 16}[at(kPage)];
    c.table = Table(at(kTable)), c.layout = KvLayout(at(kLayout));
    c.one_tensor = at(kOne) == 1 && c.table != Table::kRagged;
    c.lens = kMixes[at(kLen)];
    c.mask = at(kMask) == 1, c.sinks = at(kSink) == 1;
    c.options.causal = at(kCausal) == 1;
    c.options.window_left = std::vector<int32_t>{-1, 0, 37}[at(kWindow)];
    c.options.logits_soft_cap = at(kCap) == 1 ? 3.f : 0.f;
    c.options.disable_split = at(kSplit) == 1;
    if (at(kRope) == 1 && size_of(c.kv_dtype) == 2) c.options.rope_theta = 1e4f;
    Tiles t{.few = at(kFew) == 0 ? 16 : 32, .many = std::vector<int32_t>{128, 64, 256}[at(kMany)]};
    if (t.many == 256 && (c.d_qk <= 64 || size_of(c.kv_dtype) == 1)) t.many = 128;
    t.few_workers = std::vector<int32_t>{1, cuda::device(0).num_sms / 3, cuda::device(0).num_sms / 2}[at(kWorkers)];
    c.seed = all.size() + 1;
    all.emplace_back(c, t);
  }
  return all;
}

TEST_F(CudaAttentionMixed, PairwiseOptionsStayWithinTheBound) {
  if (cuda::device(0).max_shared_bytes < 220 << 10) GTEST_SKIP() << "tiles of 256 rows do not fit this device";
  double worst = 0;
  int32_t index = 0;
  for (const auto& [c, tiles] : cases())
    if (!emulated() || index++ % 8 == 0) check(c, tiles, &worst);
  std::printf("worst error / bound %.3f over %zu cases\n", worst, cases().size());
}

// A plan that was made on a larger device, run twice: nothing is left for a second launch of few rows.
TEST_F(CudaAttentionMixed, ThePlanMayBeForMoreSMs) {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
  c.d_qk = c.d_vo = 64, c.num_kv_heads = 2, c.group = 2, c.lens = kMixes[0];
  for (int32_t more : {0, 1, 40}) {
    SCOPED_TRACE(more);
    AttentionProblem p(c);
    OnDevice d(p);
    attention::BatchAttention batch;
    const AttentionArgs lengths = d.with_host_lengths();
    const attention::Plan plan = plan_of(c, {.few_workers = cuda::device(0).num_sms + more});
    batch.set_plan(plan, lengths);
    const GpuMemory workspace(size_t(batch.workspace_bytes()));
    d.args.workspace = bytes_of(workspace);
    AttentionArgs resident = lengths;
    resident.workspace = d.args.workspace;
    batch.set_plan(plan, resident);
    for (int32_t round = 0; round < 3; ++round) {
      p.out.poison(0xff), p.lse.poison(0xff), d.out->upload(), d.lse->upload();
      batch.run(d.args);
      d.fetch();
      EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
    }
  }
}

// A mixed batch that is large enough to get two lists, and the same lengths in one of its own kind.
TEST_F(CudaAttentionMixed, IsChosenForLargeBatchesOfBothKinds) {
  const auto config_of = [](const Lens& lens, DependentLaunch dependent = DependentLaunch::kOn, int32_t fixed = 0) {
    attention::AttentionShape shape{
        .total_q = 0, .num_qo_heads = 32, .num_kv_heads = 8, .head_dim_qk = 128, .head_dim_vo = 128, .page_size = 16};
    Tensor qo(DType::kI32, {int64_t(lens.size()) + 1}), kv(DType::kI32, {int64_t(lens.size()) + 1});
    Tensor last(DType::kI32, {int64_t(lens.size())});
    qo.set(0, 0), kv.set(0, 0);
    int64_t pages = 0;
    for (size_t i = 0; i < lens.size(); ++i) {
      qo.set(int64_t(i) + 1, double(shape.total_q += lens[i].first));
      kv.set(int64_t(i) + 1, double(pages += (lens[i].second + 15) / 16)), last.set(int64_t(i), 16);
    }
    Tensor ids(DType::kI32, {pages});
    for (int64_t i = 0; i < pages; ++i) ids.set(i, double(i));
    AttentionArgs given{.qo_indptr = qo.view(), .kv_indptr = kv.view(), .kv_indices = ids.view()};
    given.last_page_len = last.view(), given.options.fixed_split_len = fixed, given.options.causal = true;
    AttentionArgs args = placeholder(given, shape, AttentionEntry::kBatchAttention);
    for (TensorView* t : {&args.q, &args.k, &args.v, &args.out})
      t->dtype = half_dtype(), t->device_type = DeviceType::kCuda, t->device_id = 0;
    attention::BatchAttention batch({.dependent_launch = dependent});
    batch.plan(args);
    return batch.plan().header.config;
  };
  Lens both(128, {1, 4096}), decode = both;
  both.push_back({8192, 8192});
  const bool overlaps = cuda::device(0).arch >= 90;
  EXPECT_EQ(config_of(both).few_q, overlaps ? 16 : 0);
  EXPECT_EQ(config_of(both).tile_q, overlaps ? 256 : cuda::device(0).max_shared_bytes < 80 << 10 ? 64 : 128);
  EXPECT_LE(config_of(both).few_workers, std::max(1, cuda::device(0).num_sms / 2));
  Lens rounds = decode;  // 256 items of prefill: three rounds on 86 SMs, four on the 76 that decode's share leaves
  rounds.push_back({2048, 8192});
  const bool is_h100 = overlaps && cuda::device(0).num_sms == 132;
  EXPECT_EQ(is_h100 ? config_of(rounds).few_workers : 46, 46);
  EXPECT_EQ(config_of(decode).few_q, 0);
  EXPECT_EQ(config_of({{8192, 8192}}).few_q, 0);
  EXPECT_EQ(config_of({{8192, 8192}, {0, 0}}).few_q, 0);
  EXPECT_EQ(config_of(both, DependentLaunch::kOff).few_q, 0);
  EXPECT_EQ(config_of(both, DependentLaunch::kOn, 256).few_q, 0);  // bits must not depend on the rest of the batch
}

// What a captured graph launches runs the plan that was uploaded last, whatever its lists are.
TEST_F(CudaAttentionMixed, ReplaysFollowALaterPlan) {
  AttentionCase first;
  first.q_dtype = first.kv_dtype = first.out_dtype = half_dtype();
  first.d_qk = first.d_vo = 64, first.num_kv_heads = 1, first.options.causal = true;
  first.lens = {{1, 900}, {2, 70}, {40, 130}, {1, 3}};
  AttentionCase second = first;
  second.lens = {{34, 300}, {0, 5}, {1, 9}, {9, 400}};
  const Tiles wide{.few_workers = std::max(1, cuda::device(0).num_sms / 2)};
  for (const auto& [from, to] : {std::pair{first, second}, {second, first}}) {
    AttentionProblem p(from), q(to);
    OnDevice d(p), e(q);
    attention::BatchAttention captured, later;
    captured.set_plan(plan_of(from, {}), d.with_host_lengths());
    later.set_plan(plan_of(to, wide), e.with_host_lengths());
    const GpuMemory workspace(size_t(std::max(captured.workspace_bytes(), later.workspace_bytes())));
    AttentionArgs lengths = e.with_host_lengths();
    lengths.workspace = e.args.workspace = bytes_of(workspace);
    later.set_plan(later.plan(), lengths);
    attention::run_planned(captured.plan().view(), e.args, AttentionEntry::kBatchAttention, {}, {.resident = true});
    e.fetch();
    EXPECT_TRUE(within(q, reference::attention(q.args, reference::Products::kHalf)));
  }
}

// Each step's attention reads what the step before wrote after it, and writes over what that one's attention read. Of
// few SMs for few rows, their first launch is the last to end.
TEST_F(CudaAttentionMixed, NeighboursInTheStreamHaveTheSameBits) {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
  c.d_qk = c.d_vo = 64, c.num_kv_heads = 2, c.options.causal = true, c.idle_rows = 0, c.row_padding = 0;
  c.lens.assign(emulated() ? 3 : 40, {1, emulated() ? 100 : 1500});
  c.lens.push_back({emulated() ? 20 : 300, emulated() ? 30 : 500});
  const Tensor ones = Tensor(half_dtype(), {64}).fill_normal(3);
  std::vector<std::vector<char>> results;
  for (DependentLaunch how : {DependentLaunch::kOn, DependentLaunch::kOff}) {
    AttentionProblem p(c);
    OnDevice d(p);
    Tensor w = ones;
    const GpuTensor weight(w);
    const attention::Plan plan = plan_of(c, {.few_workers = 1 + cuda::device(0).num_sms / 40});
    const Context context{.dependent_launch = how};
    for (int32_t step = 0; step < (emulated() ? 2 : rounds(300)); ++step) {
      attention::run_planned(plan.view(), d.args, AttentionEntry::kBatchAttention, context);
      rmsnorm({.input = d.args.out, .weight = weight, .out = d.args.q}, context);
    }
    d.fetch();
    const char* data = p.out.data<const char>();
    results.emplace_back(data, data + p.out.num_bytes());
  }
  EXPECT_EQ(results[0], results[1]);
}

// The device plans; at each run another mix of requests of few and of many rows, or of one kind, or no rows at all.
TEST_F(CudaAttentionMixed, AnyMixMayComeToAPlanOfTheDevice) {
  constexpr int64_t kKeys = 260;
  const int64_t batch_size = std::max(7, 2 * cuda::device(0).num_sms), num_rows = 400 + batch_size;
  std::mt19937_64 rng(5);
  const auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(rng); };
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
  c.d_qk = c.d_vo = 64, c.num_kv_heads = 1, c.group = emulated() ? 1 : 4, c.options.causal = true;
  c.page_size = 4, c.table = Table::kCsr;
  for (int32_t turn = 0; turn < (emulated() ? 4 : 24); ++turn) {
    SCOPED_TRACE(turn);
    c.lens.clear();
    const int32_t kind = turn % 4;  // mixed, few rows, many rows, none
    int64_t left = num_rows;
    for (int64_t i = 0; i < batch_size; ++i) {
      const bool few = kind == 1 || (kind == 0 && pick(0, 2) > 0);
      const int64_t rows = kind == 3 ? 0 : std::min(left, few ? pick(0, 2) : pick(20, emulated() ? 60 : 150));
      c.lens.push_back({int32_t(rows), int32_t(pick(0, kKeys))}), left -= rows;
    }
    c.idle_rows = int32_t(left), c.seed = uint64_t(turn) + 1;  // the tensors of q and out have room for more
    AttentionProblem p(c);
    OnDevice d(p);
    attention::BatchAttention batch;
    batch.plan_on_device(d.args);
    const attention::PlanConfig& config = batch.plan().header.config;
    EXPECT_EQ(config.few_q > 0, cuda::device(0).arch >= 90);
    const GpuMemory workspace(size_t(batch.workspace_bytes()));
    d.args.workspace = bytes_of(workspace);
    batch.run(d.args);
    batch.run(d.args);  // of the plan that lies there
    d.fetch();
    EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
  }
}

}  // namespace
}  // namespace fulmen::testing
