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
  std::vector<std::vector<int32_t>> rows;  // of all levels but the last
  std::vector<int32_t> begins, last, ids, num_above;
};
Chosen chosen(const CascadeProblem& p, const OnDevice& d, int64_t max_ids) {
  const int64_t batch = int64_t(p.c.own.size());
  const size_t n = p.levels.size() - 1;
  std::vector<Tensor> host;
  for (size_t i = 0; i < n; ++i) host.emplace_back(DType::kI32, std::vector<int64_t>{p.levels[i].qo_indptr.shape[0]});
  for (int64_t size : {batch + 1, batch, max_ids, int64_t(1)})
    host.emplace_back(DType::kI32, std::vector<int64_t>{size});
  std::vector<std::unique_ptr<GpuTensor>> device;
  std::vector<TensorView> views;
  for (Tensor& t : host) {
    t.poison(0x55);
    views.push_back(*device.emplace_back(std::make_unique<GpuTensor>(t)));
  }
  attention::CascadeChoice choice{.shape = {p.c.num_kv_heads * p.c.group, p.c.num_kv_heads, p.c.dim, 2},
                                  .total_q = p.q.view().shape[0],
                                  .page_size = p.c.page_size,
                                  .causal = p.c.causal,
                                  .kv_indptr = views[n],
                                  .last_page_len = views[n + 1],
                                  .page_ids = views[n + 2],
                                  .num_above = views[n + 3]};
  for (size_t i = 0; i <= n; ++i) {
    const AttentionArgs& a = d.levels[i];
    choice.levels.push_back({a.qo_indptr, a.kv_indptr, a.kv_indices, a.last_page_len, {}});
    if (i < n) choice.levels.back().rows = views[i];
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
  c.begins = read(n), c.last = read(n + 1), c.ids = read(n + 2), c.num_above = read(n + 3);
  return c;
}

std::vector<int32_t> ints(const Tensor& t) {
  std::vector<int32_t> x;
  for (int64_t i = 0; i < t.view().num_elements(); ++i) x.push_back(int32_t(reference::element(t, i)));
  return x;
}

// Flat: levels above have no rows, and the last launch has the pages that the reference's table lists; else the last
// level's own.
void expect_chosen(const CascadeProblem& p, const Chosen& c, bool flat) {
  EXPECT_EQ(c.num_above[0], flat ? 0 : int32_t(c.rows.size()));
  for (size_t i = 0; i < c.rows.size(); ++i)
    EXPECT_TRUE(flat ? std::all_of(c.rows[i].begin(), c.rows[i].end(), [](int32_t x) { return x == 0; })
                     : c.rows[i] == ints(p.tables[4 * i]))
        << i;
  const Tensor* table = &p.tables[4 * (p.levels.size() - (flat ? 0 : 1))];
  const std::vector<int32_t> begins = ints(table[1]), ids = ints(table[2]), last = ints(table[3]);
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
    const int64_t own = p.tables[4 * p.levels.size() - 2].view().num_elements();
    if (flat && ids > 600) expect_chosen(p, chosen(p, d, std::max(ids / 2, own)), false);  // no room for the list
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

// Other tables and keys of the same shapes, or smaller ones, in p's place.
void put(const CascadeProblem& other, CascadeProblem& p, OnDevice& d) {
  for (size_t i = 0; i < 4 * p.levels.size(); ++i) {  // tables keep their size: a tail that nobody reads
    p.tables[i].fill(
        [&](int64_t j) { return j < other.tables[i].view().shape[0] ? reference::element(other.tables[i], j) : 0; });
    d.memory[5 + i]->upload();
  }
  for (const auto& [from, to] : {std::pair{&other.k, &p.k}, {&other.v, &p.v}})
    to->fill([&, source = from](int64_t j) {
      return j < source->view().num_elements() ? reference::element(*source, j) : 0;
    });
  d.memory[1]->upload(), d.memory[2]->upload();
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
    put(other, p, d);
    capture.replay();
    expect_right(p, other.expected(reference::Products::kHalf), d);
  }
}

// The first rows of p's results, against attention over all keys of `now`; of the others, that they were written.
void expect_first_rows_right(CascadeProblem& p, const CascadeProblem& now, OnDevice& d) {
  constexpr int64_t kRows = 24;  // of requests of one row
  AttentionArgs few = now.flat;
  for (TensorView* t : {&few.q, &few.out, &few.lse, &few.last_page_len}) t->shape[0] = kRows;
  few.qo_indptr.shape[0] = few.kv_indptr.shape[0] = kRows + 1;
  reference::AttentionValues want = reference::attention(few, reference::Products::kHalf);
  d.memory[3]->fetch(), d.memory[4]->fetch();
  for (const auto& [got, values] : {std::pair{&p.out, &want.out}, {&p.lse, &want.lse}}) {
    for (auto& x : *values) x.bound *= double(now.levels.size());
    std::vector<int64_t> shape(got->view().shape, got->view().shape + got->view().rank);
    for (int64_t i = 0; i < got->view().num_elements(); ++i)
      ASSERT_TRUE(std::isfinite(reference::element(*got, i)) || got == &p.lse) << i;
    shape[0] = kRows;
    Tensor first(got->view().dtype, shape);
    first.fill([from = got](int64_t i) { return reference::element(*from, i); });
    EXPECT_TRUE(within(first, *values));
  }
  p.out.poison(0xff), p.lse.poison(0xff);
  d.memory[3]->upload(), d.memory[4]->upload();
}

// Tables that are better run flat and tables that are not, in turns, by one graph of several layers.
class CudaCascadeReplay : public CudaCascade, public ::testing::WithParamInterface<std::pair<int64_t, int64_t>> {};
INSTANTIATE_TEST_SUITE_P(, CudaCascadeReplay, ::testing::Values(std::pair{256, 640}, std::pair{128, 2560}));
TEST_P(CudaCascadeReplay, AGraphGoesFromFlatToLevelsAndBack) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator captures nothing";
  const cuda::CurrentContext current(cuda::device(0).primary);
  const int64_t batch = GetParam().first, most = GetParam().second;
  CascadeCase c{.shared = {{{batch, most}}}, .own = {}, .page_size = 8, .num_kv_heads = 8, .group = 1, .dim = 128};
  for (int64_t b = 0; b < batch; ++b) c.own.push_back({1, b % 7 == 0 ? 0 : 1 + b % 8});
  CascadeProblem p(served(c));
  OnDevice d(p);
  Capture capture;
  attention::BatchCascade cascade({.stream = capture.stream});
  cascade.plan_on_device(d.levels);
  const GpuMemory workspace(size_t(cascade.workspace_bytes()));
  Tensor first(c.out_dtype, {batch, 8, 128});  // the first layer's, which is not looked at
  const GpuTensor first_out(first);
  capture.record([&] {
    for (int32_t layer = 0; layer < 3; ++layer)
      cascade.run(d.levels, layer == 0 ? TensorView(first_out) : d.levels[0].out, d.levels[0].lse, bytes_of(workspace));
  });
  int32_t num_flat = 0;
  for (const int64_t prefix : {most, int64_t(32), most, int64_t(0), int64_t(48)}) {
    c.shared[0][0].second = prefix;
    const CascadeProblem other(served(c));
    num_flat += predicts_flat(other) ? 1 : 0;
    put(other, p, d);
    capture.replay();
    expect_first_rows_right(p, other, d);
  }
  EXPECT_EQ(num_flat, 3);
}

}  // namespace
}  // namespace fulmen::testing
