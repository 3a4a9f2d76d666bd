// SPDX-License-Identifier: Apache-2.0
// Plans that the device makes, run again and again: other lengths in the same tensors, plans that share a workspace, a
// captured graph, several streams. Every result has the bits of a single call's.
#include <fulmen/attention/call.h>

#include <random>

#include "src/cuda/launch.h"
#include "tests/support/attention_on_gpu.h"
#include "tests/support/capture.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

namespace driver = cuda::driver;

class CudaAttentionReplay : public OnGpu {};

struct Size {
  int64_t batch = 6, rows = 20, heads = 2, group = 4, dim = 64, page_size = 4, max_pages = 40;  // pages per request
  bool uniform = false;                                                                         // no qo_indptr
};

// A batch whose lengths and pages change while its tensors stay where they are.
class Moving {
 public:
  Moving(const Size& size, uint64_t seed, const AttentionOptions& options = {}) : s(size), rng_(seed) {
    const int64_t pages = s.batch * s.max_pages;
    q_ = Tensor(DType::kF16, {s.rows, s.heads * s.group, s.dim}).fill_normal(seed);
    k_ = Tensor(DType::kF16, {pages, s.page_size, s.heads, s.dim}).fill_normal(seed + 1);
    v_ = Tensor(DType::kF16, {pages, s.page_size, s.heads, s.dim}).fill_normal(seed + 2);
    out_ = Tensor(DType::kF16, {s.rows, s.heads * s.group, s.dim});
    lse_ = Tensor(DType::kF32, {s.rows, s.heads * s.group});
    qo_ = Tensor(DType::kI32, {s.batch + 1}), kv_ = Tensor(DType::kI32, {s.batch + 1});
    last_ = Tensor(DType::kI32, {s.batch}), ids_ = Tensor(DType::kI32, {pages});
    args = {.q = put(q_), .k = put(k_), .v = put(v_), .options = options};
    args.qo_indptr = put(qo_), args.kv_indptr = put(kv_), args.kv_indices = put(ids_), args.last_page_len = put(last_);
    args.out = put(out_), args.lse = put(lse_);
    if (s.uniform) args.qo_indptr = {};
    again_ = args;
    again_.out = put(out_), again_.lse = put(lse_);
    move();
  }

  // Other lengths and pages.
  void move() {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(rng_);
    };
    int64_t row = 0, page = 0;
    std::vector<int32_t> ids(size_t(s.batch * s.max_pages));
    for (int32_t& id : ids) id = int32_t(pick(0, s.batch * s.max_pages - 1));
    if (s.uniform) ids[0] = -7, ids[3] = 1 << 30;  // pages that do not exist
    for (int64_t i = 0; i < int64_t(ids.size()); ++i) ids_.set(i, ids[size_t(i)]);
    qo_.set(0, 0), kv_.set(0, 0);
    for (int64_t b = 0; b < s.batch; ++b) {
      row += pick(0, 3) == 0 ? 0 : std::min(s.rows - row, pick(1, 6));
      const int64_t len = pick(0, 4) == 0 ? 0 : pick(1, pick(0, 2) == 0 ? s.max_pages * s.page_size : 40);
      page += (len + s.page_size - 1) / s.page_size;
      qo_.set(b + 1, double(row)), kv_.set(b + 1, double(page));
      last_.set(b, double(len == 0 ? 0 : (len - 1) % s.page_size + 1));
    }
    for (size_t i = 3; i < 7; ++i) memory_[i]->upload();
  }

  // Other pages, the same lengths.
  void move_pages() {
    for (int64_t i = 0; i < ids_.view().shape[0]; ++i)
      ids_.set(i, double(std::uniform_int_distribution<int64_t>(0, s.batch * s.max_pages - 1)(rng_)));
    memory_[5]->upload();
  }

  // Whether what `args` has computed has the bits of a call of its own.
  bool agrees(const Context& context = {}) {
    const std::vector<char> got = fetch(7), got_lse = fetch(8);
    batch_attention(again_, context);
    runtime::find_backend(DeviceType::kCuda)->synchronize(context);
    const bool same = got == fetch(9) && got_lse == fetch(10);
    if (!same) {
      const std::vector<char> expected = fetch(9);
      size_t differ = 0, poisoned = 0, first = got.size();
      for (size_t i = 0; i < got.size(); ++i) {
        poisoned += got[i] == char(0xff);
        if (got[i] != expected[i] && differ++ == 0) first = i;
      }
      std::printf("%zu of %zu bytes differ, the first at %zu; %zu are poison; lse %s\n", differ, got.size(), first,
                  poisoned, got_lse == fetch(10) ? "agrees" : "differs");
    }
    return same;
  }
  void poison() {
    out_.poison(0xff), lse_.poison(0xff);
    for (size_t i = 7; i < 11; ++i) memory_[i]->upload();
  }
  std::vector<char> fetch(size_t i) {
    const Tensor& t = memory_[i]->fetch();
    const char* data = t.data<const char>();
    return {data, data + t.num_bytes()};
  }

  Size s;
  AttentionArgs args;

 private:
  TensorView put(Tensor& t) { return *memory_.emplace_back(std::make_unique<GpuTensor>(t)); }

  std::mt19937_64 rng_;
  AttentionArgs again_;
  Tensor q_, k_, v_, out_, lse_, qo_, kv_, last_, ids_;
  std::vector<std::unique_ptr<GpuTensor>> memory_;  // q, k, v, qo, kv, ids, last, out, lse, and out and lse again
};

TensorView bytes_of(const GpuMemory& memory) {
  TensorView t = view_of(reinterpret_cast<uint8_t*>(memory.data()), {int64_t(memory.num_bytes())});
  t.device_type = DeviceType::kCuda;
  return t;
}

std::vector<AttentionOptions> options() {
  std::vector<AttentionOptions> all(3);
  all[0].causal = true;
  all[1].fixed_split_len = 32;
  all[2].window_left = 20, all[2].causal = true, all[2].logits_soft_cap = 5;
  return all;
}

// A plan on the device, made anew for lengths that change between runs.
void expect_to_follow(Moving& m, int32_t num_runs) {
  attention::BatchAttention batch;
  batch.plan_on_device(m.args);
  const GpuMemory workspace(size_t(batch.workspace_bytes()));
  m.args.workspace = bytes_of(workspace);
  for (int32_t i = 0; i < num_runs; ++i) {
    m.poison();
    batch.forget_lengths();
    batch.run(m.args);
    EXPECT_TRUE(m.agrees()) << i;
    m.move();
  }
}

TEST_F(CudaAttentionReplay, LengthsMayChangeBetweenRuns) {
  for (const AttentionOptions& o : options()) {
    Moving m({}, 1, o);
    expect_to_follow(m, emulated() ? 2 : rounds(20));
  }
}

// As many tiles as workers: the first keys are fetched while the plan is made.
TEST_F(CudaAttentionReplay, DecodeOfManyRequests) {
  const int64_t batch = cuda::device(0).num_sms * 2;
  Moving m({.batch = batch, .rows = batch, .max_pages = 12, .uniform = true}, 3);
  expect_to_follow(m, emulated() ? 1 : rounds(20));
}

// All but the first run find a plan that was there before their predecessor began; pages may change between them. A
// request whose tiles clusters share, tiles that go round once and twice, more workers than tiles.
TEST_F(CudaAttentionReplay, LayersReadTheirPlanEarly) {
  const int64_t sms = cuda::device(0).num_sms;
  for (const int64_t batch : {int64_t(1), int64_t(5), sms, 2 * sms}) {
    Moving m({.batch = batch, .rows = batch, .max_pages = batch < 5 ? 300 : 12, .uniform = true}, uint64_t(batch));
    attention::BatchAttention planned;
    planned.plan_on_device(m.args);
    const GpuMemory workspace(size_t(planned.workspace_bytes()));
    m.args.workspace = bytes_of(workspace);
    for (int32_t layer = 0; layer < (emulated() ? 2 : 20); ++layer) {
      m.poison();
      planned.run(m.args);
      EXPECT_TRUE(m.agrees()) << batch << " requests, layer " << layer;
      m.move_pages();
    }
  }
}

TEST_F(CudaAttentionReplay, PlansShareAWorkspace) {
  Moving a({}, 1), b({.batch = 3, .rows = 7, .heads = 1}, 2);
  attention::BatchAttention first, second;
  first.plan_on_device(a.args), second.plan_on_device(b.args);
  const GpuMemory first_lists(size_t(first.plan_bytes())), second_lists(size_t(second.plan_bytes()));
  first.keep_plan_in(bytes_of(first_lists)), second.keep_plan_in(bytes_of(second_lists));
  const GpuMemory workspace(size_t(std::max(first.workspace_bytes(), second.workspace_bytes())));
  a.args.workspace = b.args.workspace = bytes_of(workspace);
  for (int32_t layer = 0; layer < (emulated() ? 2 : 5); ++layer) {
    a.poison(), b.poison();
    first.run(a.args), second.run(b.args);
    EXPECT_TRUE(a.agrees() && b.agrees()) << layer;
  }
}

// Replays of a graph of three layers over other lengths and pages each time.
void expect_graphs_to_follow(const Size& size, int32_t num_replays, bool has_two_lists = false) {
  const cuda::CurrentContext current(cuda::device(0).primary);
  int32_t replays = 0;
  for (const AttentionOptions& o : options()) {
    Moving m(size, 5, o);
    Capture capture;
    attention::BatchAttention batch({.stream = capture.stream});
    batch.plan_on_device(m.args);
    ASSERT_EQ(batch.plan().header.config.few_q > 0, has_two_lists && o.fixed_split_len == 0);
    const GpuMemory workspace(size_t(batch.workspace_bytes()));
    m.args.workspace = bytes_of(workspace);
    batch.run(m.args);  // compiles and loads
    capture.synchronize();
    capture.record([&] {
      for (int32_t layer = 0; layer < 3; ++layer) batch.run(m.args);
    });
    for (int32_t i = 0; i < num_replays; ++i, ++replays) {
      m.move();
      if (i % 50 == 0) m.poison();
      capture.replay();
      ASSERT_TRUE(m.agrees()) << i;
    }
  }
  std::printf("%d replays with random lengths, all with the bits of single calls\n", replays);
}

TEST_F(CudaAttentionReplay, AGraphFollowsItsTables) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator captures nothing";
  expect_graphs_to_follow({}, rounds(3400));
}

// Room for so many requests and rows that the plan has two lists.
TEST_F(CudaAttentionReplay, AGraphOfAMixedPlanFollowsItsTables) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator captures nothing";
  const int32_t batch = std::max(60, cuda::device(0).num_sms);
  const Size size{.batch = batch, .rows = batch + 260, .heads = 2, .max_pages = 20};
  expect_graphs_to_follow(size, rounds(400), cuda::device(0).arch >= 90);
}

TEST_F(CudaAttentionReplay, StreamsDoNotDisturbEachOther) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator has one stream";
  const cuda::CurrentContext current(cuda::device(0).primary);
  constexpr int32_t kStreams = 8;
  struct Lane {
    std::unique_ptr<Moving> m;
    std::unique_ptr<Capture> stream;
    std::unique_ptr<attention::BatchAttention> batch;
    std::unique_ptr<GpuMemory> workspace;
  };
  std::vector<Lane> lanes(kStreams);
  std::mt19937_64 rng(9);
  for (int32_t i = 0; i < kStreams; ++i) {
    Lane& l = lanes[size_t(i)];
    l.m = std::make_unique<Moving>(Size{.batch = 1 + 5 * i, .rows = 12 + 9 * i, .heads = 1 + i % 3, .group = 1 + i},
                                   uint64_t(i), options()[size_t(i % 3)]);
    l.stream = std::make_unique<Capture>();
    l.batch = std::make_unique<attention::BatchAttention>(Context{.stream = l.stream->stream});
    l.batch->plan_on_device(l.m->args);
    l.workspace = std::make_unique<GpuMemory>(size_t(l.batch->workspace_bytes()));
    l.m->args.workspace = bytes_of(*l.workspace);
  }
  for (int32_t round = 0; round < rounds(100); ++round) {
    for (Lane& l : lanes) l.m->move(), l.m->poison(), l.batch->forget_lengths();
    for (int32_t op = 0; op < 40; ++op) {  // in any order, planned or not
      Lane& l = lanes[rng() % kStreams];
      AttentionArgs alone = l.m->args;
      alone.workspace = {};
      if (rng() % 3 == 0)
        batch_attention(alone, {.stream = l.stream->stream});
      else
        l.batch->run(l.m->args);
    }
    for (Lane& l : lanes) l.batch->run(l.m->args);
    for (Lane& l : lanes) cuda::check(driver::api().stream_synchronize(l.stream->stream), "synchronize");
    for (Lane& l : lanes) ASSERT_TRUE(l.m->agrees({.stream = l.stream->stream})) << round;
  }
}

void check(const AttentionCase& c) {
  AttentionProblem p(c);
  OnDevice d(p);
  batch_attention(d.args);
  if (lists_keys()) return;
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

TEST_F(CudaAttentionReplay, SeventyThousandRequests) {
  if (emulated()) GTEST_SKIP() << "too long for the emulator";
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = DType::kF16;
  c.num_kv_heads = 1, c.group = 2, c.page_size = 1, c.lens.clear();
  for (int64_t i = 0; i < 70000; ++i) c.lens.push_back({i % 7 == 0 ? 0 : 1 + i % 2, i % 4});
  check(c);
  c.table = Table::kBlockTables, c.options.causal = true;
  check(c);
}

// Pages lie beyond 2^32 elements of their pool.
TEST_F(CudaAttentionReplay, APoolOfMoreThanFourBillionElements) {
  if (emulated()) GTEST_SKIP() << "too large for the emulator";
  AttentionCase c;
  c.q_dtype = c.out_dtype = DType::kF16, c.kv_dtype = DType::kE4M3;
  c.d_qk = c.d_vo = 128, c.group = 4, c.lens = {{1, 300}, {3, 80}, {40, 77}};
  AttentionProblem p(c);
  OnDevice d(p);
  const int64_t pages = p.k.view().shape[0], page = 16 * 2 * 128, more = ((int64_t(1) << 32) / page) + 1000;
  const GpuMemory k(size_t((more + pages) * page)), v(size_t((more + pages) * page));
  gpu_copy(k.data() + more * page, p.k.data<char>(), size_t(pages * page));
  gpu_copy(v.data() + more * page, p.v.data<char>(), size_t(pages * page));
  Tensor ids(DType::kI32, {p.kv_indices.view().shape[0]});
  for (int64_t i = 0; i < ids.view().shape[0]; ++i)
    ids.set(i, reference::element(p.kv_indices, i) < 0 ? -7 : reference::element(p.kv_indices, i) + double(more));
  const GpuTensor on_gpu(ids);
  d.args.k.data = k.data(), d.args.v.data = v.data(), d.args.kv_indices = on_gpu;
  d.args.k.shape[0] = d.args.v.shape[0] = more + pages;
  batch_attention(d.args);
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

}  // namespace
}  // namespace fulmen::testing
