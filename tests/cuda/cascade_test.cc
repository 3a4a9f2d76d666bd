// SPDX-License-Identifier: Apache-2.0
// Shared prefixes in levels, planned on the host and on the device, in graphs whose tables change.
#include <fulmen/attention/cascade_choice.h>

#include "src/cuda/launch.h"
#include "tests/support/capture.h"
#include "tests/support/cascade_problem.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaCascade : public OnGpu {};

// The usual cases in a dtype that the device serves.
CascadeCase served(CascadeCase c) {
  if (c.dtype == DType::kBF16) c.dtype = half_dtype();
  return c;
}

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
    CascadeProblem p(served(c));
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

// What the device chooses, of two levels and more.
struct Chosen {
  std::vector<std::vector<int32_t>> rows;
  std::vector<int32_t> flat_rows, begins, last, ids, mask;
};
Chosen chosen(const CascadeProblem& p, const OnDevice& d, int64_t max_ids) {
  const int64_t batch = int64_t(p.c.own.size());
  std::vector<Tensor> host;
  for (const AttentionArgs& a : p.levels) host.emplace_back(DType::kI32, std::vector<int64_t>{a.qo_indptr.shape[0]});
  for (int64_t n : {batch + 1, batch + 1, batch, max_ids}) host.emplace_back(DType::kI32, std::vector<int64_t>{n});
  host.emplace_back(DType::kU8, std::vector<int64_t>{p.q.view().shape[0]});
  std::vector<std::unique_ptr<GpuTensor>> device;
  std::vector<TensorView> views;
  for (Tensor& t : host) {
    t.poison(0x55);
    views.push_back(*device.emplace_back(std::make_unique<GpuTensor>(t)));
  }
  const size_t n = p.levels.size();
  attention::CascadeChoice choice{.shape = {p.c.num_kv_heads * p.c.group, p.c.num_kv_heads, p.c.dim, 2},
                                  .total_q = p.q.view().shape[0],
                                  .page_size = p.c.page_size,
                                  .causal = p.c.causal,
                                  .flat_rows = views[n],
                                  .kv_indptr = views[n + 1],
                                  .last_page_len = views[n + 2],
                                  .page_ids = views[n + 3],
                                  .mask = views[n + 4]};
  for (size_t i = 0; i < n; ++i) {
    const AttentionArgs& a = d.levels[i];
    choice.levels.push_back({a.qo_indptr, a.kv_indptr, a.kv_indices, a.last_page_len, views[i]});
  }
  attention::choose_cascade(choice, {});
  Chosen c;
  const auto read = [&](size_t i) {
    device[i]->fetch();
    std::vector<int32_t> x;
    for (int64_t j = 0; j < host[i].view().num_elements(); ++j) x.push_back(int32_t(reference::element(host[i], j)));
    return x;
  };
  for (size_t i = 0; i < n; ++i) c.rows.push_back(read(i));
  c.flat_rows = read(n), c.begins = read(n + 1), c.last = read(n + 2), c.ids = read(n + 3), c.mask = read(n + 4);
  return c;
}

std::vector<int32_t> ints(const Tensor& t) {
  std::vector<int32_t> x;
  for (int64_t i = 0; i < t.view().num_elements(); ++i) x.push_back(int32_t(reference::element(t, i)));
  return x;
}

// The form that is not chosen has no rows; the flat one has the pages that the reference's table lists.
void expect_chosen(const CascadeProblem& p, const Chosen& c, bool flat) {
  const auto all = [](const std::vector<int32_t>& x, int32_t value) {
    return std::all_of(x.begin(), x.end(), [&](int32_t y) { return y == value; });
  };
  EXPECT_TRUE(all(c.mask, flat ? 0 : 1));
  for (size_t i = 0; i < c.rows.size(); ++i)
    EXPECT_TRUE(flat ? all(c.rows[i], 0) : c.rows[i] == ints(p.tables[4 * i])) << i;
  if (!flat) {
    EXPECT_TRUE(all(c.flat_rows, 0));
    return;
  }
  const Tensor* table = &p.tables[4 * p.levels.size()];
  const std::vector<int32_t> rows = ints(table[0]), begins = ints(table[1]), ids = ints(table[2]),
                             last = ints(table[3]);
  EXPECT_EQ(c.flat_rows, rows);
  EXPECT_EQ(c.begins[0], 0);
  for (size_t i = 0; i < p.c.own.size(); ++i) {
    const int32_t got = c.begins[i + 1] - c.begins[i], want = begins[i + 1] - begins[i];
    if (p.c.own[i].first == 0) {
      EXPECT_EQ(got, 0);
      continue;
    }
    ASSERT_EQ(got, want) << i;
    EXPECT_TRUE(std::equal(ids.begin() + begins[i], ids.begin() + begins[i + 1], c.ids.begin() + c.begins[i])) << i;
    EXPECT_EQ(c.last[i], want == 0 ? p.c.page_size : last[i]) << i;
  }
}

bool predicts_flat(const CascadeProblem& p) {
  std::vector<std::vector<attention::PlanRequest>> requests;
  for (size_t level = 0; level < p.levels.size(); ++level) {
    const std::vector<int32_t> rows = ints(p.tables[4 * level]), begins = ints(p.tables[4 * level + 1]),
                               last = ints(p.tables[4 * level + 3]);
    auto& of_level = requests.emplace_back();
    for (size_t i = 0; i < last.size(); ++i) {
      const int32_t pages = begins[i + 1] - begins[i];
      of_level.push_back(
          {rows[i], rows[i + 1] - rows[i], pages == 0 ? 0 : (pages - 1) * int32_t(p.c.page_size) + last[i]});
    }
  }
  const std::vector<std::span<const attention::PlanRequest>> levels(requests.begin(), requests.end());
  const attention::CascadeShape shape{p.c.num_kv_heads * p.c.group, p.c.num_kv_heads, p.c.dim, 2};
  return attention::predicted_us(levels, shape, true) < attention::predicted_us(levels, shape, false);
}

TEST_F(CudaCascade, TheDeviceChoosesWhatTheHostPredicts) {
  std::vector<CascadeCase> cases = cascade_cases();
  for (const auto& [batch, prefix] :
       {std::pair{1, 20000}, {600, 40}, {900, 12000}, {900, 16384}, {900, 8192}, {3, 32768}}) {
    CascadeCase c{.shared = {{{batch, prefix}}}, .own = {}, .num_kv_heads = 1, .group = 1};
    for (int64_t b = 0; b < batch; ++b) c.own.push_back({b % 11 == 3 ? 0 : 1, b % 7 == 0 ? 0 : 1 + b % 30});
    c.shared[0][0].first = batch;
    cases.push_back(c);
  }
  int32_t num_flat = 0, num_levels = 0;
  for (const CascadeCase& c : cases) {
    SCOPED_TRACE(std::to_string(c.own.size()) + " requests, prefix " + std::to_string(c.shared[0][0].second));
    CascadeProblem p(served(c));
    OnDevice d(p);
    bool flat = predicts_flat(p);
    for (const auto& [qo_len, kv_len] : c.own) flat &= !c.causal || qo_len == 0 || kv_len >= qo_len;
    ++(flat ? num_flat : num_levels);
    const int64_t ids = p.tables[4 * p.levels.size() + 2].view().num_elements();
    expect_chosen(p, chosen(p, d, ids), flat);
    if (flat && ids > 600) expect_chosen(p, chosen(p, d, ids / 2), false);  // no room for the list
  }
  EXPECT_GT(num_flat, 2);
  EXPECT_GT(num_levels, 1);
}

// Where flat attention would be something else, levels are run though they take longer.
TEST_F(CudaCascade, OnlyWhatIsTheSameIsRunFlat) {
  const CascadeCase base{.shared = {{{2, 16}, {1, 24}}}, .own = {{1, 9}, {2, 5}, {1, 1}}, .page_size = 8};
  {
    CascadeProblem p(served(base));
    OnDevice d(p);
    expect_chosen(p, chosen(p, d, 64), true);
  }
  {
    CascadeProblem p(served(base));  // a shared page that is not full
    p.tables[3].set(0, 7);
    OnDevice d(p);
    expect_chosen(p, chosen(p, d, 64), false);
  }
  {
    CascadeProblem p(served(base));  // a request in two groups
    p.tables[0].set(1, 2);
    OnDevice d(p);
    expect_chosen(p, chosen(p, d, 64), false);
  }
  {
    CascadeCase c = base;
    c.causal = true, c.own[1] = {6, 5};  // rows that would lose keys of the prefix
    CascadeProblem p(served(c));
    OnDevice d(p);
    expect_chosen(p, chosen(p, d, 64), false);
  }
}

// The same shapes with other lengths: a graph captured over one follows the tables of the others.
TEST_F(CudaCascade, AGraphFollowsItsTables) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator captures nothing";
  const cuda::CurrentContext current(cuda::device(0).primary);
  CascadeCase c{.shared = {{{5, 96}}}, .own = {{1, 30}, {1, 20}, {1, 40}, {1, 4}, {1, 30}}};
  CascadeProblem p(served(c));
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
    CascadeProblem other(served(c));
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
