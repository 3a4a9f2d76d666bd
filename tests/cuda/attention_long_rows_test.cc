// SPDX-License-Identifier: Apache-2.0
// Tiles of 256 rows on a GPU against the oracle. Batches of long rows choose them; here the plans do, for fewer.
#include <fulmen/attention/call.h>

#include "src/cuda/device.h"
#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"
#include "tests/support/pairwise.h"

namespace fulmen::testing {
namespace {

class CudaAttentionLongRows : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (!IsSkipped() && cuda::device(0).max_shared_bytes < 220 << 10)
      GTEST_SKIP() << "they do not fit this device's shared memory";
  }
};

void check(const AttentionCase& c, double* worst = nullptr) {
  SCOPED_TRACE(describe(c));
  AttentionProblem p(c);
  OnDevice d(p);
  attention::PlanConfig config{.num_qo_heads = int32_t(c.num_kv_heads * c.group),
                               .num_kv_heads = int32_t(c.num_kv_heads),
                               .num_workers = cuda::device(0).num_sms,
                               .tile_q = 256,
                               .window_left = c.options.window_left,
                               .causal = c.options.causal && !c.mask};
  std::vector<attention::PlanRequest> requests;
  int32_t begin = 0;
  for (const auto& [qo_len, kv_len] : c.lens) {
    requests.push_back({begin, int32_t(qo_len), int32_t(kv_len)});
    begin += int32_t(qo_len);
  }
  attention::run_planned(attention::make_plan(config, requests).view(), d.args, AttentionEntry::kBatchAttention);
  if (lists_keys()) return;
  d.fetch();
  const reference::AttentionValues want = reference::attention(p.args, reference::Products::kHalf);
  EXPECT_TRUE(within(p, want));
  if (worst != nullptr) *worst = std::max(*worst, std::max(ratios(p, want).out, ratios(p, want).lse));
}

// clang-format off
enum {
  kQ, kOut, kDim, kGroup, kPage, kTable, kLayout, kWide, kOne, kLen, kCausal, kWindow, kCap, kAlibi, kMask, kSink,
  kRope, kScale, kPadding, kNum
};
// clang-format on

const std::vector<std::pair<int64_t, int64_t>> kDims = {{128, 128}, {96, 96}, {72, 112}, {120, 64}};
const std::vector<Lens> kLongLens = {{{90, 250}, {1, 70}, {20, 0}}, {{270, 7}, {3, 500}, {0, 9}}, {{300, 410}}};

std::vector<AttentionCase> cases() {
  std::vector<int32_t> counts(kNum, 2);
  counts[kOut] = 3, counts[kDim] = int32_t(kDims.size()), counts[kGroup] = 3, counts[kPage] = 3, counts[kTable] = 4;
  counts[kLen] = int32_t(kLongLens.size()), counts[kWindow] = 3, counts[kScale] = 4;
  std::vector<AttentionCase> all;
  for (const auto& row : pairwise(counts)) {
    const auto at = [&](int32_t i) { return size_t(row[size_t(i)]); };
    AttentionCase c;
    c.q_dtype = c.kv_dtype = at(kQ) == 0 || emulated() ? DType::kBF16 : DType::kF16;
    c.out_dtype = at(kOut) == 0 ? c.q_dtype : at(kOut) == 1 ? DType::kF32 : DType::kF16;
    c.d_qk = kDims[at(kDim)].first, c.d_vo = kDims[at(kDim)].second;
    c.group = std::vector<int64_t>{1, 3, 4}[at(kGroup)], c.num_kv_heads = 1;
    c.page_size = std::vector<int64_t>{1, 3, 16}[at(kPage)];
    c.table = Table(at(kTable)), c.layout = KvLayout(at(kLayout)), c.wide_ids = at(kWide) == 1;
    c.one_tensor = at(kOne) == 1 && c.table != Table::kRagged && c.d_qk == c.d_vo;
    c.lens = kLongLens[at(kLen)], c.row_padding = at(kPadding) == 1 ? 24 : 0, c.idle_rows = at(kPadding) == 1 ? 2 : 0;
    c.alibi = at(kAlibi) == 1, c.mask = at(kMask) == 1, c.sinks = at(kSink) == 1;
    c.options.causal = at(kCausal) == 1;
    c.options.window_left = std::vector<int32_t>{-1, 0, 37}[at(kWindow)];
    c.options.logits_soft_cap = at(kCap) == 1 ? 3.f : 0.f;
    if (at(kRope) == 1) c.options.rope_theta = 1e4f, c.options.rope_scale = 2.f;
    if (at(kScale) == 1)
      c.options.sm_scale = 0.2f, c.options.q_scale = 0.5f, c.options.k_scale = 1.5f, c.options.v_scale = -0.7f;
    if (at(kScale) == 2) c.options.k_scale = -1;  // the best keys are the worst
    if (at(kScale) == 3) c.scale = 9;             // maxima are outgrown in the middle of a tile
    c.seed = all.size() + 1;
    all.push_back(c);
  }
  return all;
}

TEST_F(CudaAttentionLongRows, PairwiseOptionsStayWithinTheBound) {
  double worst = 0;
  for (const AttentionCase& c : cases()) check(c, &worst);
  std::printf("worst error / bound %.3f over %zu cases\n", worst, cases().size());
}

TEST_F(CudaAttentionLongRows, TilesOfKeysThatAllAndThatSomeRowsSee) {
  for (int64_t page_size : {0, 1, 16})
    for (bool causal : {true, false}) {
      if (emulated() && (page_size != 0 || !causal)) continue;
      AttentionCase c;
      c.q_dtype = c.kv_dtype = c.out_dtype = DType::kBF16;
      c.d_qk = c.d_vo = 128, c.num_kv_heads = 1, c.group = 1, c.options.causal = causal;
      c.table = page_size == 0 ? Table::kRagged : Table::kCsr, c.page_size = std::max<int64_t>(page_size, 1);
      c.lens = {{520, 700}, {40, 900}, {257, 777}, {300, 64}, {20, 0}, {270, 7}};
      if (emulated()) c.lens = {{257, 400}};
      check(c);
      if (emulated()) continue;
      c.options.window_left = 290, c.group = 3, c.lens = {{130, 1300}};
      check(c);
    }
}

TEST_F(CudaAttentionLongRows, NoVisibleKeyGivesZeroAndMinusInfinity) {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = DType::kBF16;
  c.d_qk = c.d_vo = 128, c.num_kv_heads = 1, c.group = 1, c.lens = {{260, 0}, {40, 2}}, c.options.causal = true;
  AttentionProblem p(c);
  OnDevice d(p);
  const std::vector<attention::PlanRequest> requests = {{0, 260, 0}, {260, 40, 2}};
  const attention::PlanConfig config{.num_workers = 2, .tile_q = 256, .causal = 1};
  attention::run_planned(attention::make_plan(config, requests).view(), d.args, AttentionEntry::kBatchAttention);
  d.fetch();
  for (int64_t row = 0; row < 298; ++row) {
    EXPECT_EQ(p.lse.data<float>()[row], -INFINITY);
    for (int64_t i = 0; i < 128; ++i) EXPECT_EQ(p.out.data<uint16_t>()[row * 128 + i], 0);
  }
}

// Of the plan that a batch gets.
int32_t tile_of(int64_t head_dim, DType kv, const Lens& lens) {
  AttentionCase c;
  c.q_dtype = c.out_dtype = DType::kBF16, c.kv_dtype = kv;
  c.d_qk = c.d_vo = head_dim, c.num_kv_heads = 1, c.group = 16, c.lens = lens;
  AttentionProblem p(c);
  OnDevice d(p);
  const AttentionArgs host = d.with_host_lengths();
  attention::BatchAttention batch;
  batch.plan(host);
  return batch.plan().header.config.tile_q;
}

TEST_F(CudaAttentionLongRows, AreChosenForLongRowsAlone) {
  EXPECT_EQ(tile_of(128, DType::kBF16, {{512, 20}}), 256);
  EXPECT_EQ(tile_of(96, DType::kBF16, {{512, 20}, {40, 20}}), 256);
  EXPECT_EQ(tile_of(128, DType::kBF16, {{511, 20}}), 128);
  EXPECT_EQ(tile_of(128, DType::kBF16, {{512, 20}, {1, 20}}), 128);  // a request of few rows
  EXPECT_EQ(tile_of(64, DType::kBF16, {{512, 20}}), 128);
  EXPECT_EQ(tile_of(128, DType::kE4M3, {{512, 20}}), 128);
}

}  // namespace
}  // namespace fulmen::testing
