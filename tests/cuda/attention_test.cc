// SPDX-License-Identifier: Apache-2.0
// Attention on a GPU against the oracle: a pairwise covering set of options and the shapes that decide which kernel
// runs.
#include <fulmen/attention/call.h>

#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"
#include "tests/support/pairwise.h"

namespace fulmen::testing {
namespace {

class CudaAttention : public OnGpu {};

void check(const AttentionCase& c, double* worst = nullptr) {
  SCOPED_TRACE(describe(c));
  AttentionProblem p(c);
  OnDevice d(p);
  batch_attention(d.args);
  if (lists_keys()) return;
  d.fetch();
  const reference::AttentionValues want = reference::attention(p.args, reference::Products::kHalf);
  EXPECT_TRUE(within(p, want));
  if (worst != nullptr) *worst = std::max(*worst, std::max(ratios(p, want).out, ratios(p, want).lse));
}

AttentionCase half_case() {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
  return c;
}

const std::vector<std::pair<int64_t, int64_t>> kDims = {{64, 64},   {128, 128}, {96, 96}, {40, 72},
                                                        {192, 128}, {256, 256}, {8, 136}};

// clang-format off
enum {
  kQ, kKv, kOut, kDim, kGroup, kHeads, kPage, kTable, kLayout, kWide, kOne, kLen, kCausal, kWindow, kCap, kAlibi, kMask,
  kSink, kRope, kScale, kBase, kSplit, kPadding, kNum
};
// clang-format on

std::vector<AttentionCase> cases() {
  std::vector<int32_t> counts(kNum, 2);
  counts[kKv] = 3, counts[kOut] = 3, counts[kDim] = int32_t(kDims.size()), counts[kGroup] = 5, counts[kPage] = 4;
  counts[kTable] = 4, counts[kLen] = int32_t(kLens.size()), counts[kWindow] = 3, counts[kSplit] = 4, counts[kScale] = 3;
  std::vector<AttentionCase> all;
  for (const auto& row : pairwise(counts)) {
    const auto at = [&](int32_t i) { return size_t(row[size_t(i)]); };
    AttentionCase c;
    c.q_dtype = at(kQ) == 0 ? half_case().q_dtype : DType::kF16;
    c.kv_dtype = at(kKv) == 0 ? c.q_dtype : at(kKv) == 1 ? DType::kE4M3 : DType::kE5M2;
    c.out_dtype = at(kOut) == 0 ? DType::kF32 : at(kOut) == 1 ? DType::kF16 : DType::kBF16;
    c.d_qk = kDims[at(kDim)].first, c.d_vo = kDims[at(kDim)].second;
    if (size_of(c.kv_dtype) == 1) c.d_qk = (c.d_qk + 15) / 16 * 16, c.d_vo = (c.d_vo + 15) / 16 * 16;
    c.group = std::vector<int64_t>{1, 2, 3, 7, 16}[at(kGroup)];
    c.num_kv_heads = int64_t(at(kHeads)) + 1;
    c.page_size = std::vector<int64_t>{1, 3, 16, 64}[at(kPage)];
    c.table = Table(at(kTable)), c.layout = KvLayout(at(kLayout)), c.wide_ids = at(kWide) == 1;
    c.one_tensor = at(kOne) == 1 && c.table != Table::kRagged && c.d_qk == c.d_vo;
    c.lens = kLens[at(kLen)], c.row_padding = at(kPadding) == 1 ? 24 : 0, c.idle_rows = at(kPadding) == 1 ? 2 : 0;
    c.alibi = at(kAlibi) == 1, c.mask = at(kMask) == 1, c.sinks = at(kSink) == 1;
    c.options.causal = at(kCausal) == 1;
    c.options.window_left = std::vector<int32_t>{-1, 0, 37}[at(kWindow)];
    c.options.logits_soft_cap = at(kCap) == 1 ? 3.f : 0.f;
    if (at(kRope) == 1 && size_of(c.kv_dtype) == 2) c.options.rope_theta = 1e4f, c.options.rope_scale = 2.f;
    if (at(kScale) == 1)
      c.options.sm_scale = 0.2f, c.options.q_scale = 0.5f, c.options.k_scale = 1.5f, c.options.v_scale = -0.7f;
    if (at(kScale) == 2) c.options.k_scale = -1;  // the best keys are the worst
    c.options.lse_base = LogBase(at(kBase));
    c.options.fixed_split_len = std::vector<int32_t>{0, 64, 5, 0}[at(kSplit)];
    c.options.disable_split = at(kSplit) == 3;
    c.seed = all.size() + 1;
    all.push_back(c);
  }
  return all;
}

TEST_F(CudaAttention, PairwiseOptionsStayWithinTheBound) {
  double worst = 0;
  int32_t index = 0;
  for (const AttentionCase& c : cases()) {
    if (emulated() && index++ % 6 != 0) continue;  // seconds each
    check(c, &worst);
  }
  std::printf("worst error / bound %.3f over %zu cases\n", worst, cases().size());
}

TEST_F(CudaAttention, EveryTileShapeOfUsualHeads) {
  for (const auto& [d_qk, d_vo] : {std::pair{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}})
    for (const auto& [qo_len, kv_len] : {std::pair{1, 300}, {3, 200}, {10, 170}, {33, 190}}) {  // 8, 24, 80, 264 rows
      if (emulated() && d_qk != 64 && qo_len != 1) continue;
      AttentionCase c = half_case();
      c.d_qk = d_qk, c.d_vo = d_vo, c.group = 8, c.num_kv_heads = 2, c.options.causal = true;
      c.lens = {{qo_len, kv_len}, {qo_len, 5}};
      check(c);
      c.options.causal = false, c.q_dtype = DType::kF16, c.kv_dtype = DType::kE4M3;
      if (!emulated()) check(c);
    }
}

void check_head_dims(int64_t first, int64_t last) {
  for (int64_t d = first; d <= last; d += emulated() ? 40 : 8) {
    AttentionCase c = half_case();
    c.d_qk = c.d_vo = d, c.lens = {{1, 100}, {20, 40}};
    check(c);
    c.kv_dtype = d < 128 ? DType::kE4M3 : DType::kE5M2;
    if (d % 16 == 0 && !emulated()) check(c);
  }
}
TEST_F(CudaAttention, EveryHeadDimTo64) { check_head_dims(8, 64); }
TEST_F(CudaAttention, EveryHeadDimTo128) { check_head_dims(72, 128); }
TEST_F(CudaAttention, EveryHeadDimTo192) { check_head_dims(136, 192); }
TEST_F(CudaAttention, EveryHeadDimTo256) { check_head_dims(200, 256); }

TEST_F(CudaAttention, LargerHeadDimsAreRefused) {
  AttentionCase c = half_case();
  c.d_qk = c.d_vo = 264, c.lens = {{1, 100}, {20, 40}};
  AttentionProblem p(c);
  OnDevice device(p);
  try {
    batch_attention(device.args);
    ADD_FAILURE() << "accepted";
  } catch (const Error& e) {
    EXPECT_EQ(e.code, Code::kUnsupported);
    EXPECT_NE(std::string(e.what()).find("head_dim 264 exceeds 256"), std::string::npos) << e.what();
  }
}

TEST_F(CudaAttention, GroupsOfAnySize) {
  for (int64_t group = 1; group <= 72; ++group) {
    if (emulated() && group != 5 && group != 24) continue;
    AttentionCase c = half_case();
    c.d_qk = c.d_vo = 128, c.group = group, c.num_kv_heads = 1,
    c.lens = {{1, group % 8 == 0 ? 400 : 90}, {2, 77}, {1, 3}};
    check(c);
  }
}

TEST_F(CudaAttention, PageSizes) {
  for (int64_t page_size : {1, 2, 3, 5, 16, 19, 64, 100, 256, 1024}) {
    if (emulated() && page_size != 3) continue;
    AttentionCase c = half_case();
    c.d_qk = c.d_vo = 128, c.page_size = page_size, c.lens = {{1, 900}, {1, 64}, {40, 333}}, c.options.causal = true;
    check(c);
    c.table = Table::kBlockTables, c.layout = KvLayout::kHND;
    check(c);
  }
}

// Tiles that all rows see in whole; with large scores maxima are outgrown in the middle of them.
TEST_F(CudaAttention, LongPrefill) {
  for (int64_t d : {64, 128})
    for (double scale : {1., 9.})
      for (int64_t page_size : {0, 1, 16}) {
        if (emulated() && (d != 64 || scale == 1 || page_size == 0)) continue;
        AttentionCase c = half_case();
        c.d_qk = c.d_vo = d, c.scale = scale, c.num_kv_heads = 2, c.group = 1, c.options.causal = page_size != 16;
        c.table = page_size == 0 ? Table::kRagged : Table::kCsr, c.page_size = std::max<int64_t>(page_size, 1);
        c.lens = {{150, 150}, {130, 200}, {40, 900}, {129, 1177}};
        if (emulated()) c.lens = {{130, 830}}, c.num_kv_heads = 1;
        check(c);
        c.options.window_left = 890;
        check(c);
        c.lens = {{60, 1500}};  // tiles of 64 rows
        check(c);
      }
}

// More tiles than CTAs, so that each goes through several: of one tile of keys, of two, of none, of few rows.
TEST_F(CudaAttention, ShortRequestsFollowEachOther) {
  const std::vector<std::pair<int64_t, int64_t>> lens = {{128, 128}, {200, 200}, {65, 65},  {130, 20}, {150, 0},
                                                         {20, 90},   {270, 270}, {66, 191}, {97, 97},  {129, 300}};
  for (int64_t d : {128, 64})
    for (int64_t page_size : {0, 16, 1}) {
      if (emulated() && (d == 64) != (page_size == 1)) continue;
      AttentionCase c = half_case();
      c.d_qk = c.d_vo = d, c.num_kv_heads = emulated() ? 1 : 4, c.group = page_size == 1 ? 2 : 1;
      c.options.causal = page_size != 1;
      c.table = page_size == 0 ? Table::kRagged : Table::kCsr, c.page_size = std::max<int64_t>(page_size, 1);
      c.lens = lens;
      for (int32_t i = 0; !emulated() && i < 30; ++i) c.lens.push_back(lens[size_t(i * 7 % 10)]);
      check(c);
      c.out_dtype = DType::kF32;  // by way of shared memory
      if (page_size == 16) check(c);
    }
}

TEST_F(CudaAttention, NoVisibleKeyGivesZeroAndMinusInfinity) {
  AttentionCase c = half_case();
  c.lens = {{5, 2}, {2, 0}}, c.options.causal = true, c.out_dtype = DType::kF32;
  AttentionProblem p(c);
  OnDevice d(p);
  batch_attention(d.args);
  d.fetch();
  for (int64_t row : {0, 1, 2, 5, 6})
    for (int64_t h = 0; h < 4; ++h) {
      EXPECT_EQ(p.lse.data<float>()[row * 4 + h], -INFINITY);
      for (int64_t i = 0; i < 64; ++i) EXPECT_EQ(p.out.data<float>()[(row * 4 + h) * 64 + i], 0.f);
    }
}

// One struct, for this program's compiler and as text for the GPU's.
#define FULMEN_AND_AS_TEXT(text, ...) \
  __VA_ARGS__;                        \
  constexpr const char* text = #__VA_ARGS__ ";"

using attention::Defaults, attention::KvRange, attention::Row;
namespace math = fulmen::math;

FULMEN_AND_AS_TEXT(
    kLocalAndFirst, struct LocalAndFirst
    : Defaults {
      const float* temperature = nullptr;  // [num_qo_heads]
      float sm_scale = 1;
      int32_t window = 0, num_first = 0;
      FULMEN_FN bool has_mask() const { return true; }
      FULMEN_FN bool changes_logits() const { return true; }
      FULMEN_FN KvRange visible(Row row) const { return {0, causal_end(row)}; }
      FULMEN_FN bool keep(Row row, int32_t j) const {
        return j < num_first || j + window >= row.kv_len - row.qo_len + row.qo_idx;
      }
      template <class F, class I>
      FULMEN_FN F logit(Row row, I, F x) const {
        return x * F(temperature[row.qo_head]);
      }
      FULMEN_FN float scale_log2() const { return sm_scale * math::kLog2e; }
    });

FULMEN_AND_AS_TEXT(
    kSigmoid, struct Sigmoid
    : Defaults {
      static constexpr bool kSoftmax = false;
      float sm_scale = 1;
      float bias = 0;
      template <class F, class I>
      FULMEN_FN F weight(Row, I, F x) const {
        using math::exp2;
        return F(1) / (F(1) + exp2(-(x * F(sm_scale) + F(bias)) * F(math::kLog2e)));
      }
      FULMEN_FN float scale_log2() const { return sm_scale * math::kLog2e; }
    });

TEST_F(CudaAttention, VariantsGivenAsText) {
  for (int64_t qo_len : {1, 40}) {
    AttentionCase c = half_case();
    c.lens = {{qo_len, 300}, {qo_len, 90}};
    AttentionProblem p(c);
    OnDevice d(p);
    Tensor temperature = Tensor(DType::kF32, {4}).fill([](int64_t h) { return 0.5 + 0.25 * double(h); });
    const GpuTensor on_gpu(temperature);
    LocalAndFirst v;
    v.temperature = temperature.data<float>(), v.sm_scale = 0.125f, v.window = 64, v.num_first = 3;
    const reference::AttentionValues want = reference::attention(p.args, v, reference::Products::kHalf);
    v.temperature = TensorView(on_gpu).as<float>();
    attention::run_variant(d.args, {"LocalAndFirst", kLocalAndFirst, &v, sizeof v});
    d.fetch();
    EXPECT_TRUE(within(p, want));
  }
}

TEST_F(CudaAttention, VariantsWithoutSoftmaxAsText) {
  AttentionCase c = half_case();
  c.d_qk = c.d_vo = 16, c.num_kv_heads = c.group = 1, c.out_dtype = DType::kF32, c.lens = {{2, 130}};
  c.table = Table::kRagged;
  AttentionProblem p(c);
  OnDevice d(p);
  Sigmoid v;
  v.sm_scale = 0.25f, v.bias = -2;
  const reference::AttentionValues want = reference::attention(p.args, v, reference::Products::kHalf);
  attention::run_variant(d.args, {"Sigmoid", kSigmoid, &v, sizeof v});
  d.fetch();
  EXPECT_TRUE(within(p, want));
}

// Runs as planned, with the plan uploaded before.
void run_planned(OnDevice& d, const GpuMemory& workspace, attention::BatchAttention& batch, int64_t times = 1) {
  d.args.workspace = view_of(reinterpret_cast<uint8_t*>(workspace.data()), {int64_t(workspace.num_bytes())});
  d.args.workspace.device_type = DeviceType::kCuda;
  batch.plan(d.args);
  for (int64_t i = 0; i < times; ++i) batch.run(d.args);
  d.fetch();
}

// Memory that no request owns has no influence, whatever it holds, nor has the workspace.
TEST_F(CudaAttention, PoisonChangesNoBit) {
  int32_t index = 0;
  for (AttentionCase c : cases()) {
    if (++index % (emulated() ? 40 : 4) != 0) continue;
    SCOPED_TRACE(describe(c));
    AttentionProblem poisoned(c);
    c.poison = 0;
    AttentionProblem clean(c);
    OnDevice a(poisoned), b(clean);
    attention::BatchAttention batch;
    batch.plan(a.args);
    const GpuMemory workspace(size_t(batch.workspace_bytes())), other(workspace.num_bytes());
    const std::vector<uint8_t> ones(workspace.num_bytes(), 0xff), zeros(workspace.num_bytes(), 0);
    gpu_copy(workspace.data(), ones.data(), ones.size()), gpu_copy(other.data(), zeros.data(), zeros.size());
    run_planned(a, workspace, batch, 3);  // counters are left as they were found
    run_planned(b, other, batch);
    EXPECT_TRUE(poisoned.out.same_bytes(clean.out));
    EXPECT_TRUE(poisoned.lse.same_bytes(clean.lse));
  }
}

// Under fixed_split_len a request's bits do not depend on what else is in the batch.
TEST_F(CudaAttention, FixedSplitsMakeBitsAFunctionOfTheRequest) {
  AttentionCase c = half_case();
  c.d_qk = c.d_vo = 64, c.options.fixed_split_len = 128, c.options.causal = true, c.table = Table::kRagged;
  c.lens = {{3, 700}};
  AttentionProblem alone(c);
  OnDevice a(alone);
  batch_attention(a.args);
  a.fetch();
  for (int64_t i = 0; i < (emulated() ? 3 : 300); ++i) c.lens.push_back({1 + i % 4, 20 + 7 * i});
  AttentionProblem crowd(c);
  std::memcpy(crowd.q.data<char>(), alone.q.data<char>(), size_t(alone.q.view().num_elements() * 2));
  OnDevice b(crowd);
  batch_attention(b.args);
  b.fetch();
  EXPECT_EQ(std::memcmp(alone.out.data<char>(), crowd.out.data<char>(), size_t(alone.out.view().num_elements() * 2)),
            0);
}

TEST_F(CudaAttention, TablesInHostMemoryCanBePlannedWith) {
  AttentionCase c = half_case();
  c.lens = {{1, 40}, {3, 300}};
  AttentionProblem p(c);
  OnDevice d(p);
  AttentionArgs host = d.args;
  host.qo_indptr = p.args.qo_indptr, host.kv_indptr = p.args.kv_indptr, host.kv_indices = p.args.kv_indices;
  host.last_page_len = p.args.last_page_len;
  attention::BatchAttention batch;
  batch.plan(host);
  const GpuMemory workspace(size_t(batch.workspace_bytes()));
  d.args.workspace = view_of(reinterpret_cast<uint8_t*>(workspace.data()), {int64_t(workspace.num_bytes())});
  d.args.workspace.device_type = DeviceType::kCuda;
  batch.run(d.args);
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

// More slots of one tile than shared memory takes at a time, and several rows of fewer.
TEST_F(CudaAttention, ManySlotsOfOneTileAreMerged) {
  if (emulated()) GTEST_SKIP() << "the emulated device has few workers";
  for (const auto& [group, kv_len] : {std::pair{1, 60000}, {16, 9000}, {16, 60000}}) {
    AttentionCase c = half_case();
    c.d_qk = c.d_vo = 128, c.num_kv_heads = 1, c.group = group, c.lens = {{1, kv_len}};
    check(c);
  }
}

TEST_F(CudaAttention, RefusalsNameTheirReason) {
  const auto refused = [](const AttentionCase& c, const char* reason) {
    AttentionProblem p(c);
    OnDevice d(p);
    try {
      batch_attention(d.args);
      ADD_FAILURE() << "expected a refusal: " << reason;
    } catch (const Error& e) {
      EXPECT_EQ(e.code, Code::kUnsupported);
      EXPECT_NE(std::string(e.what()).find(reason), std::string::npos) << e.what();
    }
  };
  AttentionCase c = half_case();
  c.q_dtype = DType::kF32;
  refused(c, "q is float32, expected float16 or bfloat16");
  if (half_dtype() == DType::kBF16) {
    c = half_case(), c.kv_dtype = DType::kF16;
    refused(c, "k is float16, expected q's dtype or FP8");
  } else {
    c = half_case(), c.q_dtype = c.kv_dtype = c.out_dtype = DType::kBF16;
    refused(c, "bfloat16 needs sm_80 or later");
  }
  c = half_case(), c.kv_dtype = DType::kE4M3, c.options.rope_theta = 1e4f;
  refused(c, "RoPE on the fly of FP8 keys");
  c = half_case(), c.kv_dtype = DType::kE4M3, c.d_qk = c.d_vo = 40;
  refused(c, "no multiple of 16");
}

}  // namespace
}  // namespace fulmen::testing
