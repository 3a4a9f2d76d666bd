// SPDX-License-Identifier: Apache-2.0
// Kernels that start while their predecessor ends (programmatic dependent launch) give the bits of those that wait: ops
// of very different sizes, each reading what the one before it wrote, and overwriting what one before that read. A
// step that starts too early reads or overwrites something else.
#include <fulmen/attention/call.h>
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/elementwise.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/merge_state.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/rope.h>
#include <fulmen/ops/sample.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/top_k.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <random>
#include <string_view>

#include "src/cuda/launch.h"
#include "tests/support/gpu_tensor.h"

namespace fulmen::testing {
namespace {

namespace driver = cuda::driver;
constexpr DType kBF16 = DType::kBF16, kF32 = DType::kF32, kI32 = DType::kI32;

class CudaDependentLaunch : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() == 0)
      GTEST_SKIP() << "no CUDA device: " << (driver::problem().empty() ? "the driver lists none" : driver::problem());
    const cuda::CurrentContext current(cuda::device(0).primary);
    cuda::check(driver::api().stream_create(&stream_, 1), "cuStreamCreate");
  }
  void TearDown() override {
    if (stream_ != nullptr) driver::api().stream_destroy(stream_);
  }
  Context context(bool dependent) const {
    return {.stream = stream_, .dependent_launch = dependent ? DependentLaunch::kOn : DependentLaunch::kOff};
  }
  driver::Stream stream_ = nullptr;
};

// FULMEN_CHAIN_STEPS makes chains longer.
int32_t num_steps() {
  const char* text = std::getenv("FULMEN_CHAIN_STEPS");
  return text == nullptr ? 2000 : std::atoi(text);
}

class State {
 public:
  TensorView put(DType dtype, std::vector<int64_t> shape, const std::function<double(int64_t)>& value = {}) {
    Tensor& t = *hosts_.emplace_back(std::make_unique<Tensor>(dtype, shape));
    if (value)
      for (int64_t i = 0; i < t.view().num_elements(); ++i) t.set(i, value(i));
    else
      t.fill_normal(++seed_);
    return *devices_.emplace_back(std::make_unique<GpuTensor>(t));
  }
  void hash(std::vector<uint64_t>* states) {
    for (const auto& t : devices_) {
      const Tensor& now = t->fetch();
      states->push_back(std::hash<std::string_view>{}({static_cast<const char*>(now.view().data), now.num_bytes()}));
    }
  }

 private:
  uint64_t seed_ = 0;
  std::vector<std::unique_ptr<Tensor>> hosts_;
  std::vector<std::unique_ptr<GpuTensor>> devices_;
};

TensorView some(TensorView t, int64_t rows) {
  t.shape[0] = rows;
  return t;
}

std::vector<uint64_t> states_of_rows(int32_t steps, const Context& context) {
  constexpr int64_t kN = 1024, kMostRows = 3000;
  State s;
  const TensorView a = s.put(kBF16, {kMostRows, kN}), b = s.put(kBF16, {kMostRows, kN});
  const TensorView c = s.put(kBF16, {kMostRows, kN / 2}), w = s.put(kBF16, {kN});
  std::mt19937 random(7);
  std::vector<uint64_t> states;
  for (int32_t step = 1; step <= steps; ++step) {
    const int64_t rows = int64_t(random() % 4 == 0 ? random() % kMostRows : random() % 8) + 1;
    TensorView x = some(a, rows), y = some(b, rows), z = some(c, rows), half = some(w, kN / 2);
    rmsnorm({.input = x, .weight = w, .out = y}, context);
    act_and_mul({.input = y, .out = z}, context);
    rmsnorm({.input = some(c, 1), .weight = half, .out = some(c, 1)}, context);
    y.shape[1] = kN / 2;
    fused_add_rmsnorm({.input = z, .residual = y, .weight = half, .out = z}, context);
    elementwise({.text = "return 0.5f * a + sinf(3.0f * b);", .name = "mix", .a = x, .b = some(b, rows), .out = x},
                context);
    if (step % 100 > 0) continue;
    cuda::check(driver::api().stream_synchronize(static_cast<driver::Stream>(context.stream)), "synchronize");
    s.hash(&states);
  }
  return states;
}

TEST_F(CudaDependentLaunch, RowsHaveTheSameBits) {
  EXPECT_EQ(states_of_rows(num_steps(), context(true)), states_of_rows(num_steps(), context(false)));
}

// A layer and a sampler: attention over pages that each step appends to, then logits that the tokens' state changes.
class Server {
 public:
  static constexpr int64_t kRequests = 5, kHeads = 8, kDim = 64, kPages = 40, kPage = 16, kVocab = 40000;

  void step(const Context& context) {
    rope({.q = q, .k = k, .q_out = q, .k_out = k, .pos_ids = positions}, context);
    append_paged_kv_cache({.append_key = k,
                           .append_value = v,
                           .batch_indices = requests,
                           .positions = positions,
                           .k_cache = k_cache,
                           .v_cache = v_cache,
                           .kv_indices = pages,
                           .kv_indptr = indptr},
                          context);
    AttentionArgs attention{.q = q, .k = k_cache, .v = v_cache};
    attention.qo_indptr = rows, attention.kv_indptr = indptr, attention.kv_indices = pages;
    attention.last_page_len = last_page_len, attention.out = out, attention.lse = lse;
    batch_attention(attention, context);
    merge_state({.v_a = out, .s_a = lse, .v_b = q, .s_b = lse, .out = out, .lse = lse}, context);
    rmsnorm({.input = out, .weight = weight, .out = q}, context);
    elementwise({.text = "return 0.5f * a + sinf(3.0f * b);", .name = "mix", .a = v, .b = q, .out = v}, context);
    sample({.input = logits,
            .out = tokens,
            .filter = {.top_k = 50, .top_p = 0.9f},
            .random = {.seed = 7},
            .values = TokenValues::kLogits},
           context);
    softmax({.logits = logits, .out = probs}, context);
    token_filter({.input = probs, .out = probs, .filter = {.top_p = 0.8f}}, context);
    sample({.input = probs, .out = other_tokens, .filter = {.top_p = 0.5f}, .random = {.seed = 9}}, context);
    top_k({.input = probs, .values = values, .indices = ids, .sorted = false}, context);
    elementwise(
        {.text = "return sinf(2.0f * a + 1000.0f * b + 0.3f);", .name = "next", .a = logits, .b = probs, .out = logits},
        context);
  }

  State s;

 private:
  TensorView q = s.put(kBF16, {kRequests, kHeads, kDim}), k = s.put(kBF16, {kRequests, kHeads, kDim}),
             v = s.put(kBF16, {kRequests, kHeads, kDim}), out = s.put(kBF16, {kRequests, kHeads, kDim});
  TensorView lse = s.put(kF32, {kRequests, kHeads}), weight = s.put(kBF16, {kDim});
  TensorView k_cache = s.put(kBF16, {kRequests * kPages, kPage, kHeads, kDim}),
             v_cache = s.put(kBF16, {kRequests * kPages, kPage, kHeads, kDim});
  TensorView pages = s.put(kI32, {kRequests * kPages}, [](int64_t i) { return double(i); });
  TensorView indptr = s.put(kI32, {kRequests + 1}, [](int64_t i) { return double(i * kPages); });
  TensorView rows = s.put(kI32, {kRequests + 1}, [](int64_t i) { return double(i); });
  TensorView last_page_len = s.put(kI32, {kRequests}, [](int64_t) { return double(kPage); });
  TensorView requests = s.put(kI32, {kRequests}, [](int64_t i) { return double(i); });
  TensorView positions = s.put(kI32, {kRequests}, [](int64_t i) { return double(i * 111); });
  TensorView logits = s.put(kF32, {kRequests, kVocab}), probs = s.put(kF32, {kRequests, kVocab});
  TensorView values = s.put(kF32, {kRequests, 300}), ids = s.put(kI32, {kRequests, 300});
  TensorView tokens = s.put(kI32, {kRequests}), other_tokens = s.put(kI32, {kRequests});
};

// In a graph of ten steps after the first, or in the stream.
std::vector<uint64_t> states_of_server(int32_t steps, const Context& context, bool in_graph) {
  constexpr int32_t kRecorded = 10;
  const driver::Api& cu = driver::api();
  const auto stream = static_cast<driver::Stream>(context.stream);
  const cuda::CurrentContext current(cuda::device(0).primary);
  Server server;
  std::vector<uint64_t> states;
  driver::Graph graph = nullptr;
  driver::GraphExec exec = nullptr;
  server.step(context);
  if (in_graph) {
    cuda::check(cu.stream_begin_capture(stream, driver::kCaptureGlobal), "begin");
    for (int32_t i = 0; i < kRecorded; ++i) server.step(context);
    cuda::check(cu.stream_end_capture(stream, &graph), "end");
    cuda::check(cu.graph_instantiate(&exec, graph, 0), "instantiate");
  }
  for (int32_t step = 0; step < steps; step += kRecorded) {
    if (in_graph)
      cuda::check(cu.graph_launch(exec, stream), "launch");
    else
      for (int32_t i = 0; i < kRecorded; ++i) server.step(context);
    if (step % (10 * kRecorded) > 0) continue;
    cuda::check(cu.stream_synchronize(stream), "synchronize");
    server.s.hash(&states);
  }
  if (in_graph) cu.graph_exec_destroy(exec), cu.graph_destroy(graph);
  return states;
}

TEST_F(CudaDependentLaunch, AServersStepsHaveTheSameBits) {
  const std::vector<uint64_t> serial = states_of_server(num_steps() / 4, context(false), false);
  EXPECT_EQ(states_of_server(num_steps() / 4, context(true), false), serial);
  EXPECT_EQ(states_of_server(num_steps() / 4, context(true), true), serial);
}

}  // namespace
}  // namespace fulmen::testing
