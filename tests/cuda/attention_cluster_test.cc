// SPDX-License-Identifier: Apache-2.0
// Decode whose tiles are shared by the CTAs of clusters: parts without keys, every shape of tile, plans with slots.
#include "src/cuda/attention_cluster.h"

#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaAttentionCluster : public OnGpu {
 protected:
  void SetUp() override {
    OnGpu::SetUp();
    if (!IsSkipped() && cuda::device(0).arch < 90) GTEST_SKIP() << "clusters need sm_90";
  }
};

// As many kv heads as leave an SM or two for each tile: the emulated device has three.
AttentionCase few_tiles(DType dtype = DType::kF16) {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = dtype;
  c.num_kv_heads = emulated() ? 1 : 8, c.group = 4, c.d_qk = c.d_vo = 64;
  return c;
}

void check(const AttentionCase& c) {
  SCOPED_TRACE(describe(c));
  AttentionProblem p(c);
  OnDevice d(p);
  batch_attention(d.args);
  if (lists_keys()) return;
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

TEST_F(CudaAttentionCluster, PartsMayBeEmpty) {
  for (int64_t kv_len : {0, 1, 15, 64, 65, 200, 1000, 1025, 7001}) {
    if (emulated() && kv_len > 1000) continue;
    for (int64_t qo_len : {1, 3, 6}) {
      AttentionCase c = few_tiles();
      c.lens = {{qo_len, kv_len}}, c.options.causal = true, c.page_size = 16;
      check(c);
      c.options.window_left = 100, c.sinks = true;
      if (!emulated() || kv_len == 200) check(c);
    }
  }
}

// Of several requests on a device that knows no lengths: pairs, and a request far longer than the others is split.
TEST_F(CudaAttentionCluster, SeveralRequestsOfUnknownLengths) {
  for (const std::vector<int64_t>& lens :
       {std::vector<int64_t>{9000, 1, 300, 70}, {1281, 0, 2047, 2048}, {0, 0, 0, 0}}) {
    AttentionCase c = few_tiles();
    if (emulated() && lens[0] > 2000) continue;
    c.page_size = 16;
    for (int64_t kv_len : lens) c.lens.push_back({1, kv_len});
    check(c);
    c.lens.push_back({1, 555}), c.lens.push_back({1, 5000});
    if (!emulated()) check(c);
  }
}

TEST_F(CudaAttentionCluster, EveryShapeOfTile) {
  for (const auto& [d_qk, d_vo] : {std::pair{64, 64}, {96, 96}, {128, 128}, {192, 128}, {256, 256}})
    for (DType kv : {DType::kF16, DType::kE4M3}) {
      if (emulated() && d_qk != 128) continue;
      AttentionCase c = few_tiles();
      c.kv_dtype = kv, c.d_qk = d_qk, c.d_vo = d_vo, c.lens = {{1, 777}};
      c.mask = true, c.alibi = kv == DType::kF16;
      check(c);
      c.lens = {{7, 777}}, c.options.causal = true;  // 28 rows
      if (std::max(d_qk, d_vo) <= 128) check(c);
    }
}

TensorView bytes_of(const GpuMemory& memory) {
  TensorView t = view_of(reinterpret_cast<uint8_t*>(memory.data()), {int64_t(memory.num_bytes())});
  t.device_type = DeviceType::kCuda;
  return t;
}

// What was launched for one plan runs any other that lies in its workspace.
// Saved on a device of more SMs, or of so few that clusters of all here would be too large.
TEST_F(CudaAttentionCluster, ThePlanMayBeAnotherDevices) {
  const int32_t num_sms = cuda::device(0).num_sms;
  AttentionCase c = few_tiles();
  c.lens = {{1, 300}, {2, 77}, {1, 0}};
  AttentionProblem p(c);
  OnDevice d(p);
  for (int32_t num_workers : {1, num_sms + 1, 4 * num_sms}) {
    SCOPED_TRACE(num_workers);
    attention::PlanConfig config{.num_qo_heads = int32_t(c.num_kv_heads * c.group),
                                 .num_kv_heads = int32_t(c.num_kv_heads),
                                 .num_workers = num_workers,
                                 .tile_q = 16,
                                 .min_split_len = 0x7fffffff,  // clusters
                                 .causal = c.options.causal};
    const int32_t size = cuda::cluster_size(config, cuda::device(0));
    EXPECT_GE(size, 1);
    EXPECT_LE(size, 8);
    p.out.poison(0xff), p.lse.poison(0xff), d.out->upload(), d.lse->upload();
    const attention::Plan plan = attention::make_plan(config, {{{0, 1, 300}, {1, 2, 77}, {3, 1, 0}}});
    attention::run_planned(plan.view(), d.args, AttentionEntry::kBatchAttention);
    d.fetch();
    EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
  }
}

TEST_F(CudaAttentionCluster, APlanWithSlotsMayTakeItsPlace) {
  AttentionCase c = few_tiles();
  c.num_kv_heads = 1, c.lens = {{1, 900}};
  AttentionProblem p(c);
  OnDevice d(p);
  const AttentionArgs host = d.with_host_lengths();
  attention::BatchAttention batch;
  batch.plan(host);
  const attention::PlanConfig shared = batch.plan().header.config;
  ASSERT_GT(cuda::cluster_size(shared, cuda::device(0)), 1);
  attention::PlanConfig split = shared;
  split.num_workers = cuda::device(0).num_sms, split.min_split_len = 64;
  const attention::PlanRequest request{0, 1, 900};
  const attention::Plan other = attention::make_plan(split, {&request, 1});
  ASSERT_GT(other.header.num_slots, 1);
  constexpr AttentionEntry kEntry = AttentionEntry::kBatchAttention;
  const GpuMemory workspace(size_t(attention::workspace_bytes_of(other.view(), d.args, kEntry)) + 4096);
  d.args.workspace = bytes_of(workspace);
  const reference::AttentionValues want = reference::attention(p.args, reference::Products::kHalf);
  attention::run_planned(other.view(), d.args, kEntry);
  d.fetch();
  EXPECT_TRUE(within(p, want));
  for (int32_t i = 0; i < 2; ++i) {  // counters are left as they were found
    p.out.poison(0xff);
    attention::run_planned(batch.plan().view(), d.args, kEntry, {}, {.resident = true});
    d.fetch();
    EXPECT_TRUE(within(p, want));
  }
}

// Several items for each cluster, of a row each: most warps have no sums to send and nobody to wait for but others'.
TEST_F(CudaAttentionCluster, ItemsOfOneRowFollowEachOther) {
  AttentionCase c = few_tiles();
  c.num_kv_heads = 1, c.group = 1, c.d_qk = c.d_vo = 64, c.lens = {{1, 300}};
  AttentionProblem one(c);
  OnDevice on_device(one);
  const AttentionArgs host = on_device.with_host_lengths();
  attention::BatchAttention batch;
  batch.plan(host);
  const attention::PlanConfig shared = batch.plan().header.config;
  ASSERT_GT(cuda::cluster_size(shared, cuda::device(0)), 1);
  c.lens.assign(size_t(shared.num_workers) * 3, {1, 300});
  c.lens[0].second = 7;
  AttentionProblem p(c);
  OnDevice d(p);
  std::vector<attention::PlanRequest> requests;
  for (const auto& [qo_len, kv_len] : c.lens)
    requests.push_back({int32_t(requests.size()), int32_t(qo_len), int32_t(kv_len)});
  attention::run_planned(attention::make_plan(shared, requests).view(), d.args, AttentionEntry::kBatchAttention);
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

}  // namespace
}  // namespace fulmen::testing
