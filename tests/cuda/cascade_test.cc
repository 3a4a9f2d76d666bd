// SPDX-License-Identifier: Apache-2.0
// Shared prefixes in levels, planned on the host and on the device, in graphs whose tables change.
#include "src/cuda/launch.h"
#include "tests/support/capture.h"
#include "tests/support/cascade_problem.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaCascade : public OnGpu {};

TensorView bytes_of(const GpuMemory& memory) {
  TensorView t = view_of(reinterpret_cast<uint8_t*>(memory.data()), {int64_t(memory.num_bytes())});
  t.device_type = DeviceType::kCuda;
  return t;
}

struct OnDevice {
  std::vector<std::unique_ptr<GpuTensor>> memory;  // q, k, v, out, lse, then the levels' tables
  std::vector<AttentionArgs> levels;
  explicit OnDevice(CascadeProblem& p) : levels(p.levels) {
    for (Tensor* t : {&p.q, &p.k, &p.v, &p.out, &p.lse}) add(*t);
    for (size_t i = 0; i < levels.size(); ++i) {
      AttentionArgs& a = levels[i];
      a.q = *memory[0], a.k = *memory[1], a.v = *memory[2], a.out = *memory[3], a.lse = *memory[4];
      a.qo_indptr = add(p.tables[4 * i]), a.kv_indptr = add(p.tables[4 * i + 1]);
      a.kv_indices = add(p.tables[4 * i + 2]), a.last_page_len = add(p.tables[4 * i + 3]);
    }
  }
  const GpuTensor& add(Tensor& t) { return *memory.emplace_back(std::make_unique<GpuTensor>(t)); }
};

void expect_right(CascadeProblem& p, const reference::AttentionValues& want, OnDevice& d) {
  d.memory[3]->fetch(), d.memory[4]->fetch();
  EXPECT_TRUE(within(p.out, want.out)) << p.levels.size() << " levels, " << p.c.own.size() << " requests";
  EXPECT_TRUE(within(p.lse, want.lse)) << p.levels.size() << " levels, " << p.c.own.size() << " requests";
  p.out.poison(0xff), p.lse.poison(0xff);
  d.memory[3]->upload(), d.memory[4]->upload();
}

TEST_F(CudaCascade, AgreesWithAttentionOverAllKeys) {
  for (const CascadeCase& c : cascade_cases()) {
    if (emulated() && c.own.size() > 50) continue;
    CascadeProblem p(c);
    const reference::AttentionValues want = p.expected(reference::Products::kHalf);
    OnDevice d(p);
    for (const bool on_device : {true, false}) {
      attention::BatchCascade cascade;
      on_device ? cascade.plan_on_device(d.levels) : cascade.plan(d.levels);
      const GpuMemory workspace(size_t(cascade.workspace_bytes()));
      if (!on_device) cascade.plan(d.levels, bytes_of(workspace));
      for (int32_t layer = 0; layer < 2; ++layer) {
        cascade.run(d.levels, d.levels[0].out, d.levels[0].lse, bytes_of(workspace));
        expect_right(p, want, d);
      }
    }
  }
}

// The same shapes with other lengths: a graph captured over one follows the tables of the others.
TEST_F(CudaCascade, AGraphFollowsItsTables) {
  if (emulated()) GTEST_SKIP() << "the emulator captures nothing";
  const cuda::CurrentContext current(cuda::device(0).primary);
  CascadeCase c{.shared = {{{5, 96}}}, .own = {{1, 30}, {1, 20}, {1, 40}, {1, 4}, {1, 30}}};
  CascadeProblem p(c);
  OnDevice d(p);
  Capture capture;
  attention::BatchCascade cascade({.stream = capture.stream});
  cascade.plan_on_device(d.levels);
  const GpuMemory workspace(size_t(cascade.workspace_bytes()));
  const auto run = [&] { cascade.run(d.levels, d.levels[0].out, d.levels[0].lse, bytes_of(workspace)); };
  run();
  capture.synchronize();
  capture.record([&] { run(), run(); });
  for (const std::vector<int64_t>& lens :
       {std::vector<int64_t>{0, 1, 2, 3, 4, 5}, {96, 0, 0, 0, 0, 0}, {4, 30, 7, 40, 1, 9}}) {
    c.shared[0][0].second = lens[0];
    for (size_t i = 0; i < c.own.size(); ++i) c.own[i].second = lens[i + 1];
    CascadeProblem other(c);
    for (size_t i = 0; i < 8; ++i) {  // tables keep their size: a tail that nobody reads
      Tensor& t = p.tables[i];
      t.fill(
          [&](int64_t j) { return j < other.tables[i].view().shape[0] ? reference::element(other.tables[i], j) : 0; });
      d.memory[5 + i]->upload();
    }
    for (const auto& [from, to] : {std::pair{&other.k, &p.k}, {&other.v, &p.v}})
      to->fill([&, source = from](int64_t j) {
        return j < source->view().num_elements() ? reference::element(*source, j) : 0;
      });
    d.memory[1]->upload(), d.memory[2]->upload();
    capture.replay();
    expect_right(p, other.expected(reference::Products::kHalf), d);
  }
}

}  // namespace
}  // namespace fulmen::testing
