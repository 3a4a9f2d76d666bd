// SPDX-License-Identifier: Apache-2.0
// Two batches of tensors and options of their own, decode beside prefill (POD): against the oracle and against the two
// runs by themselves, on plans of the host's and such that the device makes.
#include <fulmen/attention/call.h>
#include <fulmen/ops/rmsnorm.h>

#include <algorithm>
#include <random>

#include "src/cuda/device.h"
#include "tests/support/attention_on_gpu.h"
#include "tests/support/capture.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

using attention::BatchAttention;

class CudaAttentionBeside : public OnGpu {
 protected:
  static TensorView bytes_of(const GpuMemory& memory) {
    TensorView t = view_of(reinterpret_cast<uint8_t*>(memory.data()), {int64_t(memory.num_bytes())});
    t.device_type = DeviceType::kCuda;
    return t;
  }

  // Tables lie on the device unless the host plans.
  struct Half {
    AttentionProblem problem;
    OnDevice device;
    bool host;
    BatchAttention batch;
    std::unique_ptr<GpuMemory> workspace;

    // has_room: the table of page ids could hold so many keys that running beside others pays.
    Half(const AttentionCase& c, bool on_host, bool has_room = true)
        : problem(c), device(has_room ? widened(problem) : problem), host(on_host) {}
    static AttentionProblem& widened(AttentionProblem& p) {
      if (p.c.table == Table::kRagged) return p;
      const Tensor own = p.kv_indices;
      const int64_t num_own = own.view().num_elements();
      p.kv_indices = Tensor(own.view().dtype, {200000}).fill([](int64_t) { return -7; });
      for (int64_t i = 0; i < num_own; ++i) p.kv_indices.set(i, reference::element(own, i));
      p.args.kv_indices = p.kv_indices;
      return p;
    }
    void plan(const BatchAttention* beside = nullptr, DependentLaunch how = DependentLaunch::kAsSet) {
      batch.use({.dependent_launch = how});
      if (host)
        batch.plan(device.with_host_lengths(), AttentionEntry::kBatchAttention, beside);
      else
        batch.plan_on_device(device.args, AttentionEntry::kBatchAttention, beside);
      workspace = std::make_unique<GpuMemory>(size_t(batch.workspace_bytes()));
      device.args.workspace = bytes_of(*workspace);
    }
    std::vector<char> bits() {
      device.fetch();
      std::vector<char> all(problem.out.data<const char>(), problem.out.data<const char>() + problem.out.num_bytes());
      all.insert(all.end(), problem.lse.data<const char>(), problem.lse.data<const char>() + problem.lse.num_bytes());
      return all;
    }
    void forget() { problem.out.poison(0xff), problem.lse.poison(0xff), device.out->upload(), device.lse->upload(); }
    ::testing::AssertionResult is_right() {
      device.fetch();
      return within(problem, reference::attention(problem.args, reference::Products::kHalf));
    }
  };

  static AttentionCase decode_of(uint64_t seed) {
    std::mt19937_64 rng(seed);
    AttentionCase c;
    c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
    c.d_qk = c.d_vo = 64, c.num_kv_heads = 2, c.group = 2, c.page_size = 4, c.seed = seed;
    c.lens.clear();
    for (int32_t i = 0; i < std::max(4, cuda::device(0).num_sms); ++i) c.lens.push_back({1, int64_t(rng() % 300)});
    return c;
  }
  // Of so many heads that tiles of few rows would be too many.
  static AttentionCase prefill_of(uint64_t seed) {
    AttentionCase c;
    c.q_dtype = c.kv_dtype = c.out_dtype = half_dtype();
    c.d_qk = c.d_vo = 64, c.num_kv_heads = cuda::device(0).num_sms > 16 ? 4 : 1, c.group = 2, c.seed = seed;
    c.options.causal = true;
    c.table = Table::kRagged, c.lens = {{emulated() ? 258 : 350, emulated() ? 300 : 600}};
    return c;
  }
  static bool overlaps() { return cuda::device(0).arch >= 90; }
};

// Each with the options of its own half; any of the plans made by the host.
TEST_F(CudaAttentionBeside, HalvesAreThoseOfTheirOwnRuns) {
  std::vector<std::pair<AttentionCase, AttentionCase>> all;
  for (int32_t i = 0; i < 7; ++i) {
    AttentionCase d = decode_of(uint64_t(i) + 1), p = prefill_of(uint64_t(i) + 30);
    if (i == 1) d.options.window_left = 40, d.options.sm_scale = 0.3f, d.layout = KvLayout::kHND;
    if (i == 2) d.kv_dtype = DType::kE4M3, p.mask = true, p.options.causal = false;
    if (i == 3) d.sinks = true, d.group = 4, p.options.rope_theta = 1e4f, p.options.window_left = 100;
    if (i == 4) p.table = Table::kCsr, p.lens = {{100, 120}, {0, 5}, {70, 70}, {130, 400}}, p.alibi = true;
    if (i == 5) d.lens[0].first = d.lens[2].first = 0, d.table = Table::kCsrSeqLens, p.options.logits_soft_cap = 5;
    if (i == 6) {  // a mixed batch itself, if the device plans it
      p.num_kv_heads = 1, p.group = cuda::device(0).num_sms > 16 ? 16 : 2;  // most rows are the long ones
      p.lens.assign(size_t(2 * cuda::device(0).num_sms), {1, 60}), p.lens[1] = {300, 350}, p.lens[3] = {60, 60};
      p.table = Table::kCsr;
    }
    all.emplace_back(d, p);
  }
  for (size_t i = 0; i < all.size(); ++i)
    for (int32_t host = 0; host < 3; ++host) {
      if (host != int32_t(i % 3) && (host > 0 || emulated())) continue;
      SCOPED_TRACE(describe(all[i].first) + " beside " + describe(all[i].second) + " host " + std::to_string(host));
      Half decode(all[i].first, host == 1), prefill(all[i].second, host == 2);
      prefill.plan();
      decode.plan(&prefill.batch);
      EXPECT_EQ(prefill.batch.plan().header.config.few_q > 0, i == 6 && host != 2 && overlaps());
      // A host knows how few keys there are, and a window says how many.
      EXPECT_EQ(decode.batch.runs_beside(), overlaps() && host != 1 && all[i].first.options.window_left < 0);
      for (int32_t round = 0; round < 2; ++round)  // the second time plans lie there
        decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args);
      EXPECT_TRUE(decode.is_right());
      EXPECT_TRUE(prefill.is_right());
      const std::vector<char> both[] = {decode.bits(), prefill.bits()};
      decode.forget(), prefill.forget();
      decode.batch.run(decode.device.args), prefill.batch.run(prefill.device.args);
      EXPECT_EQ(both[0], decode.bits());
      EXPECT_EQ(both[1], prefill.bits());
    }
}

TEST_F(CudaAttentionBeside, OthersComeOneAfterTheOther) {
  const auto runs_beside = [](const AttentionCase& d, const AttentionCase& p,
                              DependentLaunch how = DependentLaunch::kOn, bool has_room = true) {
    Half decode(d, false, has_room), prefill(p, false);
    prefill.plan(nullptr, how);
    decode.plan(&prefill.batch, how);
    decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args);
    EXPECT_TRUE(decode.is_right());
    EXPECT_TRUE(prefill.is_right());
    return decode.batch.runs_beside();
  };
  const AttentionCase d = decode_of(1), p = prefill_of(2);
  AttentionCase short_p = p, fixed = d, fixed_p = p, empty = p, none = d, long_rows = d;
  short_p.lens = {{20, 200}}, empty.lens = {{0, 50}}, none.lens.clear();
  fixed.options.fixed_split_len = fixed_p.options.fixed_split_len = 64;
  for (auto& [qo_len, kv_len] : long_rows.lens) qo_len = emulated() ? 18 : 40;
  EXPECT_EQ(runs_beside(d, p), overlaps());
  EXPECT_FALSE(runs_beside(d, p, DependentLaunch::kOff));
  EXPECT_FALSE(runs_beside(d, p, DependentLaunch::kOn, false));
  EXPECT_FALSE(runs_beside(d, short_p));
  EXPECT_FALSE(runs_beside(fixed, p));
  EXPECT_FALSE(runs_beside(d, fixed_p));
  EXPECT_FALSE(runs_beside(d, empty));
  EXPECT_FALSE(runs_beside(none, p));
  EXPECT_FALSE(runs_beside(long_rows, p));
  EXPECT_FALSE(runs_beside(p, p));
}

// Both plans made by the host, which knows what pays.
TEST_F(CudaAttentionBeside, HostsKnowWhatPays) {
  if (emulated()) GTEST_SKIP() << "takes the emulator too long";
  AttentionCase d = decode_of(1), p = prefill_of(2);
  d.lens.assign(80, {1, 3000}), d.page_size = 16, p.lens = {{1100, 1100}};
  for (int64_t keys : {3000, 200}) {
    d.lens[7].second = 0;
    for (size_t i = 8; i < d.lens.size(); ++i) d.lens[i].second = keys;
    Half decode(d, true), prefill(p, true);
    prefill.plan();
    decode.plan(&prefill.batch);
    EXPECT_EQ(decode.batch.runs_beside(), overlaps() && keys == 3000);
    decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args);
    EXPECT_TRUE(decode.is_right());
    EXPECT_TRUE(prefill.is_right());
  }
}

// A plan of one that others run beside may be given another; and one without dependent launches.
TEST_F(CudaAttentionBeside, APlanRunsBesideWhateverItIsGiven) {
  Half decode(decode_of(1), false), prefill(prefill_of(2), false);
  AttentionCase other = prefill_of(3);
  other.lens = {{20, 200}};
  Half few(other, false);
  prefill.plan(), few.plan();
  decode.plan(&prefill.batch);
  decode.batch.run_beside(decode.device.args, few.batch, few.device.args);
  EXPECT_TRUE(decode.is_right());
  EXPECT_TRUE(few.is_right());
  decode.forget();
  decode.batch.use({.dependent_launch = DependentLaunch::kOff});
  decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args);
  EXPECT_TRUE(decode.is_right());
  EXPECT_TRUE(prefill.is_right());
}

// At once, the prefill would read keys that the decodes' results have taken the place of.
TEST_F(CudaAttentionBeside, HalvesThatShareMemoryComeOneAfterTheOther) {
  Half decode(decode_of(1), false), prefill(prefill_of(2), false);
  prefill.plan();
  decode.plan(&prefill.batch);
  AttentionArgs args = decode.device.args;
  args.out.data = prefill.device.args.k.data;
  const size_t num_bytes = decode.problem.out.num_bytes();
  ASSERT_LE(num_bytes, prefill.problem.k.num_bytes());
  decode.batch.run_beside(args, prefill.batch, prefill.device.args);
  EXPECT_TRUE(prefill.is_right());
  gpu_copy(decode.device.args.out.data, args.out.data, num_bytes);
  EXPECT_TRUE(decode.is_right());

  Half other(prefill_of(2), false);  // whose keys are whole
  other.plan();
  const GpuMemory list(size_t(decode.batch.plan_bytes())), other_list(size_t(other.batch.plan_bytes()));
  decode.batch.keep_plan_in(bytes_of(list)), other.batch.keep_plan_in(bytes_of(other_list));
  const GpuMemory workspace(size_t(std::max(decode.batch.workspace_bytes(), other.batch.workspace_bytes())));
  decode.device.args.workspace = other.device.args.workspace = bytes_of(workspace);
  decode.forget();
  decode.batch.run_beside(decode.device.args, other.batch, other.device.args);
  EXPECT_TRUE(decode.is_right());
  EXPECT_TRUE(other.is_right());
}

TEST_F(CudaAttentionBeside, ErrorsOfEitherHalfAreToldBeforeAnythingRuns) {
  Half decode(decode_of(1), false), prefill(prefill_of(2), false);
  prefill.plan();
  decode.plan(&prefill.batch);
  const std::vector<char> clean = decode.bits();
  AttentionArgs bad = prefill.device.args;
  bad.workspace.shape[0] = 100;
  EXPECT_THROW(decode.batch.run_beside(decode.device.args, prefill.batch, bad), Error);
  bad = prefill.device.args, bad.options.causal = false;
  EXPECT_THROW(decode.batch.run_beside(decode.device.args, prefill.batch, bad), Error);
  bad = prefill.device.args, bad.k.data = bad.k.as<char>() + 2, bad.k.shape[0] -= 1;
  if (!overlaps()) return;  // one after the other: the decodes do not know of it
  EXPECT_THROW(decode.batch.run_beside(decode.device.args, prefill.batch, bad), Error);
  EXPECT_EQ(decode.bits(), clean);
}

// Each step's halves read what the step before wrote after them, and write over what those read.
TEST_F(CudaAttentionBeside, NeighboursInTheStreamHaveTheSameBits) {
  AttentionCase d = decode_of(1), p = prefill_of(2);
  if (!emulated())
    for (auto& [qo_len, kv_len] : d.lens) kv_len *= 5;
  std::vector<std::vector<char>> results[2];
  Tensor ones = Tensor(d.q_dtype, {64}).fill_normal(3);
  for (DependentLaunch how : {DependentLaunch::kOn, DependentLaunch::kOff}) {
    const Context context{.dependent_launch = how};
    Half decode(d, false), prefill(p, false);
    prefill.plan();
    decode.plan(&prefill.batch, DependentLaunch::kOn);  // the same plan for both
    decode.batch.use(context), prefill.batch.use(context);
    const GpuTensor weight(ones);
    for (int32_t step = 0; step < (emulated() ? 2 : rounds(300)); ++step) {
      decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args);
      rmsnorm({.input = prefill.device.args.out, .weight = weight, .out = prefill.device.args.q}, context);
      rmsnorm({.input = decode.device.args.out, .weight = weight, .out = decode.device.args.q}, context);
    }
    results[how == DependentLaunch::kOn] = {decode.bits(), prefill.bits()};
  }
  EXPECT_EQ(results[0], results[1]);
}

// One captured run, replayed with other lengths of decodes: any, and none at all.
TEST_F(CudaAttentionBeside, ReplaysFollowOtherLengths) {
  if (emulated()) GTEST_SKIP() << "the emulator captures nothing";
  const cuda::CurrentContext current(cuda::device(0).primary);
  AttentionCase d = decode_of(1);
  d.table = Table::kCsrSeqLens;
  for (auto& [qo_len, kv_len] : d.lens) kv_len = 900;
  Half decode(d, false), prefill(prefill_of(2), false);
  prefill.plan();
  decode.plan(&prefill.batch);
  decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args);  // compiles
  EXPECT_TRUE(decode.is_right());
  Capture capture;
  decode.batch.use({.stream = capture.stream}), prefill.batch.use({.stream = capture.stream});
  capture.record([&] { decode.batch.run_beside(decode.device.args, prefill.batch, prefill.device.args); });
  std::mt19937_64 rng(7);
  for (int32_t turn = 0; turn < 6; ++turn) {
    SCOPED_TRACE(turn);
    for (int64_t b = 0; b < int64_t(d.lens.size()); ++b)
      decode.problem.seq_lens.set(b, turn == 2 ? 0 : double(rng() % (turn == 3 && b > 0 ? 3 : 901)));
    for (const auto& memory : decode.device.memory)
      if (TensorView(*memory).data == decode.device.args.seq_lens.data) memory->upload();
    decode.forget(), prefill.forget();
    capture.replay();
    EXPECT_TRUE(decode.is_right());
    EXPECT_TRUE(prefill.is_right());
  }
}

}  // namespace
}  // namespace fulmen::testing
