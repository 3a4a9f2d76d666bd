// SPDX-License-Identifier: Apache-2.0
// Large tiles against the oracle. Where shared memory is small (sm_75, 86, 89, 120) a tile's sums pass through it some
// columns at a time; the emulated device is like that under FULMEN_CUDA_TARGET=compute_75 and compute_89.
#include <fulmen/attention/call.h>

#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"
#include "tests/support/pairwise.h"

namespace fulmen::testing {
namespace {

class CudaAttentionLargeHeads : public OnGpu {};

AttentionCase half_case(int64_t d_qk = 256, int64_t d_vo = 256) {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
  c.d_qk = d_qk, c.d_vo = d_vo;
  return c;
}

void expect_right(const AttentionProblem& p) {
  if (lists_keys()) return;
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

// Twice under a plan of the host's, in a workspace that is full of `fill`: counters are left as they were found.
attention::PlanHeader run_planned(OnDevice& d, uint8_t fill = 0xff) {
  attention::BatchAttention batch;
  batch.plan(d.with_host_lengths());
  const GpuMemory workspace(size_t(batch.workspace_bytes()));
  const std::vector<uint8_t> bytes(workspace.num_bytes(), fill);
  gpu_copy(workspace.data(), bytes.data(), bytes.size());
  AttentionArgs args = d.args;
  args.workspace = view_of(reinterpret_cast<uint8_t*>(workspace.data()), {int64_t(workspace.num_bytes())});
  args.workspace.device_type = DeviceType::kCuda;
  for (int32_t i = 0; i < 2; ++i) batch.run(args);
  d.fetch();
  return batch.plan().header;
}

// Planned on the device, or on the host.
void check(const AttentionCase& c, bool on_device = true) {
  SCOPED_TRACE(describe(c));
  AttentionProblem p(c);
  OnDevice d(p);
  if (on_device)
    batch_attention(d.args), d.fetch();
  else
    run_planned(d);
  expect_right(p);
}

// clang-format off
enum {
  kKv, kOut, kDim, kGroup, kPage, kTable, kLayout, kLen, kCausal, kWindow, kCap, kAlibi, kMask, kSink, kRope, kScale,
  kSplit, kPlan, kNum
};
// clang-format on

// A tile of one part, of full ones, of a last one that is narrower.
const std::vector<std::pair<int64_t, int64_t>> kDims = {{256, 256}, {200, 216}, {256, 136}, {192, 192}, {256, 64}};
const std::vector<Lens> kLargeLens = {
    {{1, 1}, {1, 0}, {1, 17}, {1, 230}},   // decode
    {{20, 7}, {0, 5}, {5, 0}, {33, 33}},   // more queries than keys, an empty query and an empty cache
    {{3, 40}, {70, 100}},                  // append
    {{1, 90}, {66, 66}, {0, 0}, {7, 30}},  // mixed
    {{2, 900}},                            // long enough to be split
};

std::vector<std::pair<AttentionCase, bool>> cases() {
  std::vector<int32_t> counts(kNum, 2);
  counts[kKv] = 3, counts[kOut] = 3, counts[kDim] = int32_t(kDims.size()), counts[kGroup] = 3, counts[kPage] = 3;
  counts[kTable] = 4, counts[kLen] = int32_t(kLargeLens.size()), counts[kWindow] = 3, counts[kScale] = 4;
  counts[kSplit] = 3;
  std::vector<std::pair<AttentionCase, bool>> all;
  for (const auto& row : pairwise(counts)) {
    const auto at = [&](int32_t i) { return size_t(row[size_t(i)]); };
    AttentionCase c = half_case(kDims[at(kDim)].first, kDims[at(kDim)].second);
    c.kv_dtype = at(kKv) == 0 ? c.q_dtype : at(kKv) == 1 ? DType::kE4M3 : DType::kE5M2;
    if (size_of(c.kv_dtype) == 1) c.d_qk = (c.d_qk + 15) / 16 * 16, c.d_vo = (c.d_vo + 15) / 16 * 16;
    c.out_dtype = at(kOut) == 0 ? c.q_dtype : at(kOut) == 1 ? DType::kF32 : DType::kF16;
    c.group = std::vector<int64_t>{1, 3, 8}[at(kGroup)], c.num_kv_heads = emulated() ? 1 : 2;
    c.page_size = std::vector<int64_t>{1, 3, 16}[at(kPage)];
    c.table = Table(at(kTable)), c.layout = KvLayout(at(kLayout)), c.lens = kLargeLens[at(kLen)];
    c.alibi = at(kAlibi) == 1, c.mask = at(kMask) == 1, c.sinks = at(kSink) == 1;
    c.options.causal = at(kCausal) == 1;
    c.options.window_left = std::vector<int32_t>{-1, 0, 37}[at(kWindow)];
    c.options.logits_soft_cap = at(kCap) == 1 ? 3.f : 0.f;
    if (at(kRope) == 1 && size_of(c.kv_dtype) == 2) c.options.rope_theta = 1e4f, c.options.rope_scale = 2.f;
    if (at(kScale) == 1) c.options.v_scale = -0.7f, c.options.lse_base = LogBase::k2;
    if (at(kScale) == 2) c.options.k_scale = -1;  // the best keys are the worst
    if (at(kScale) == 3) c.scale = 9;             // maxima are outgrown in the middle of a tile
    c.options.fixed_split_len = std::vector<int32_t>{0, 64, 0}[at(kSplit)];
    c.options.disable_split = at(kSplit) == 2;
    c.seed = all.size() + 1;
    all.emplace_back(c, at(kPlan) == 1);
  }
  return all;
}

TEST_F(CudaAttentionLargeHeads, PairwiseOptionsStayWithinTheBound) {
  int32_t index = 0;
  for (const auto& [c, on_device] : cases())
    if (!emulated() || index++ % 3 == 0) check(c, on_device);
  std::printf("%zu cases\n", cases().size());
}

TEST_F(CudaAttentionLargeHeads, EveryWidthInParts) {
  for (int64_t d = 72; d <= 256; d += 32)
    for (int64_t other : {int64_t(256), d, int64_t(8)}) {
      if (emulated() && other != d) continue;
      AttentionCase c = half_case(other, d);
      c.num_kv_heads = 1, c.lens = {{1, 50}, {34, 20}};
      check(c);
      if (emulated() || other < 256) continue;
      c.d_vo = d + 8, c.kv_dtype = DType::kE4M3, c.out_dtype = DType::kF32;
      check(c);
    }
}

// Slots whose columns are written part by part, then merged.
TEST_F(CudaAttentionLargeHeads, SlotsOfSplitTilesAreMerged) {
  for (const auto& [qo_len, kv_len] : {std::pair{1, 1500}, {40, 700}})
    for (DType kv : {half_dtype(), DType::kE5M2}) {
      if (emulated() && kv == half_dtype() && qo_len == 1) continue;
      AttentionCase c = half_case();
      c.kv_dtype = kv, c.num_kv_heads = 1, c.lens = {{qo_len, kv_len}}, c.sinks = true;
      AttentionProblem p(c);
      OnDevice d(p);
      const attention::PlanHeader header = run_planned(d);
      EXPECT_TRUE(header.num_merges > 0 || header.config.tile_q < 64);  // clusters share smaller tiles
      expect_right(p);
      check(c, true);
    }
}

// Keys walked in ranges, whose sums are folded column by column.
TEST_F(CudaAttentionLargeHeads, FixedSplitsMakeBitsAFunctionOfTheRequest) {
  for (DType kv : {half_dtype(), DType::kE4M3}) {
    if (emulated() && kv != half_dtype()) continue;
    AttentionCase c = half_case();
    c.kv_dtype = kv, c.options.fixed_split_len = 64, c.options.causal = true, c.table = Table::kRagged;
    c.num_kv_heads = 1, c.lens = {{3, 300}};
    AttentionProblem alone(c);
    OnDevice a(alone);
    batch_attention(a.args);
    a.fetch();
    expect_right(alone);
    for (int64_t i = 0; i < (emulated() ? 2 : 200); ++i) c.lens.push_back({1 + i % 4, 20 + 7 * i});
    AttentionProblem crowd(c);
    std::memcpy(crowd.q.data<char>(), alone.q.data<char>(), size_t(alone.q.view().num_elements() * 2));
    OnDevice b(crowd);
    batch_attention(b.args);
    b.fetch();
    EXPECT_EQ(std::memcmp(alone.out.data<char>(), crowd.out.data<char>(), size_t(alone.out.view().num_elements() * 2)),
              0);
  }
}

// Memory that no request owns has no influence, whatever it holds, nor has the workspace.
TEST_F(CudaAttentionLargeHeads, PoisonChangesNoBit) {
  for (DType kv : {half_dtype(), DType::kE4M3}) {
    if (emulated() && kv != half_dtype()) continue;
    AttentionCase c = half_case();
    c.kv_dtype = kv, c.num_kv_heads = 1, c.page_size = 3, c.lens = {{1, 700}, {35, 50}, {2, 0}, {20, 7}};
    c.out_dtype = DType::kF32;
    AttentionProblem poisoned(c);
    c.poison = 0;
    AttentionProblem clean(c);
    OnDevice a(poisoned), b(clean);
    run_planned(a, 0xff), run_planned(b, 0);
    EXPECT_TRUE(poisoned.out.same_bytes(clean.out));
    EXPECT_TRUE(poisoned.lse.same_bytes(clean.lse));
    expect_right(clean);
  }
}

// Of 128 rows, which 99 KB hold in the same way: results of warps' own, through shared memory, of split tiles, few
// rows.
TEST_F(CudaAttentionLargeHeads, TallTilesOfHeadDim128) {
  for (DType kv : {half_dtype(), DType::kE4M3})
    for (DType out : {half_dtype(), DType::kF32}) {
      if (emulated() && kv != half_dtype() && out == DType::kF32) continue;
      AttentionCase c = half_case(128, 128);
      c.kv_dtype = kv, c.out_dtype = out, c.num_kv_heads = 1, c.group = 1, c.options.causal = out == DType::kF32;
      c.lens = {{140, 100}, {1, 300}, {90, 333}, {130, 0}};
      check(c);
      check(c, false);
      c.mask = true, c.sinks = true, c.lens = {{120, 700}};
      check(c, false);
    }
}

constexpr const char* kCappedText = R"(
struct Capped : Defaults {
  float sm_scale = 1;
  int32_t window = 0;
  FULMEN_FN bool has_mask() const { return true; }
  FULMEN_FN bool changes_logits() const { return true; }
  FULMEN_FN bool keep(Row row, int32_t j) const { return j + window >= row.kv_len - row.qo_len + row.qo_idx; }
  template <class F, class I>
  FULMEN_FN F logit(Row row, I, F x) const {
    return x * F(0.5f + 0.25f * float(row.qo_head));
  }
  FULMEN_FN float scale_log2() const { return sm_scale * math::kLog2e; }
};
)";
using attention::Defaults, attention::Row;
struct Capped : Defaults {  // the text's, for the reference
  float sm_scale = 1;
  int32_t window = 0;
  bool has_mask() const { return true; }
  bool changes_logits() const { return true; }
  bool keep(Row row, int32_t j) const { return j + window >= row.kv_len - row.qo_len + row.qo_idx; }
  template <class F, class I>
  F logit(Row row, I, F x) const {
    return x * F(0.5f + 0.25f * float(row.qo_head));
  }
  float scale_log2() const { return sm_scale * math::kLog2e; }
};

TEST_F(CudaAttentionLargeHeads, VariantsGivenAsText) {
  for (int64_t qo_len : {1, 40}) {
    AttentionCase c = half_case();
    c.lens = {{qo_len, 150}, {qo_len, 90}};
    AttentionProblem p(c);
    OnDevice d(p);
    Capped v;
    v.sm_scale = 0.0625f, v.window = 64;
    attention::run_variant(d.args, {"Capped", kCappedText, &v, sizeof v});
    d.fetch();
    EXPECT_TRUE(within(p, reference::attention(p.args, v, reference::Products::kHalf)));
  }
}

}  // namespace
}  // namespace fulmen::testing
