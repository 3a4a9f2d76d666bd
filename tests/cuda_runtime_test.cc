// SPDX-License-Identifier: Apache-2.0
// The CUDA backend around its kernels: streams, graphs, threads, errors. Skipped where there is no GPU.
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/reference/rmsnorm.h>

#include <atomic>
#include <thread>

#include "src/cuda/table.h"
#include "tests/support/gpu_tensor.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

namespace driver = cuda::driver;

class CudaRuntime : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() == 0)
      GTEST_SKIP() << "no CUDA device: " << (driver::problem().empty() ? "the driver lists none" : driver::problem());
  }
};

struct NormProblem {
  Tensor x, w, out;
  GpuTensor dx, dw, dout;
  explicit NormProblem(int64_t rows, int64_t n, uint64_t seed = 1)
      : x(DType::kBF16, {rows, n}),
        w(DType::kBF16, {n}),
        out(DType::kBF16, {rows, n}),
        dx((fill(seed), x)),
        dw(w),
        dout(out) {}
  RmsNormArgs args() const { return {.input = dx, .weight = dw, .out = dout}; }
  reference::Values expected() const { return reference::rmsnorm({.input = x, .weight = w, .out = out}); }

 private:
  void fill(uint64_t seed) { x.fill_normal(seed), w.fill_normal(seed + 100); }
};

driver::Stream new_stream() {
  const cuda::CurrentContext current(cuda::device(0).primary);
  driver::Stream stream = nullptr;
  cuda::check(driver::api().stream_create(&stream, 1), "cuStreamCreate");
  return stream;
}

TEST_F(CudaRuntime, RunsOnTheCallersStreamAndLeavesNoContextBehind) {
  NormProblem p(37, 1000);
  const driver::Stream stream = new_stream();
  driver::Context before = nullptr, after = nullptr;
  driver::api().context_get(&before);
  rmsnorm(p.args(), {.stream = stream});
  driver::api().context_get(&after);
  EXPECT_EQ(before, after);
  runtime::find_backend(DeviceType::kCuda)->synchronize({.stream = stream});
  EXPECT_TRUE(within(p.dout.fetch(), p.expected()));
  driver::api().stream_destroy(stream);
}

TEST_F(CudaRuntime, AGraphReplaysWithChangedInputs) {
  for (bool prepared : {true, false}) {
    NormProblem p(prepared ? 64 : 65, prepared ? 2048 : 3000), other(prepared ? 64 : 65, prepared ? 2048 : 3000, 7);
    const driver::Stream stream = new_stream();
    const driver::Api& cu = driver::api();
    const RmsNormArgs args = p.args();
    if (prepared) runtime::prepare(runtime::op_handle("rmsnorm"), args.out, &args, {});
    const cuda::CurrentContext current(cuda::device(0).primary);
    driver::Graph graph = nullptr;
    driver::GraphExec exec = nullptr;
    cuda::check(cu.stream_begin_capture(stream, driver::kCaptureGlobal), "begin");
    rmsnorm(p.args(), {.stream = stream});  // unprepared: compiles and loads while capturing
    cuda::check(cu.stream_end_capture(stream, &graph), "end");
    cuda::check(cu.graph_instantiate(&exec, graph, 0), "instantiate");
    for (NormProblem* now : {&p, &other}) {
      gpu_copy(p.args().input.data, now->args().input.data, now->x.num_bytes());
      gpu_copy(p.args().weight.data, now->args().weight.data, now->w.num_bytes());
      cuda::check(cu.graph_launch(exec, stream), "launch");
      cuda::check(cu.stream_synchronize(stream), "synchronize");
      EXPECT_TRUE(within(p.dout.fetch(), now->expected())) << prepared;
    }
    cu.graph_exec_destroy(exec), cu.graph_destroy(graph), cu.stream_destroy(stream);
  }
}

// A capture in global mode forbids other threads what loading a module does; it must not be broken by theirs.
TEST_F(CudaRuntime, AnotherThreadsFirstCallDoesNotBreakACapture) {
  NormProblem p(66, 3008), other(67, 2504);
  const driver::Stream stream = new_stream(), own = new_stream();
  const driver::Api& cu = driver::api();
  const cuda::CurrentContext current(cuda::device(0).primary);
  rmsnorm(p.args(), {.stream = stream});
  driver::Graph graph = nullptr;
  cuda::check(cu.stream_begin_capture(stream, driver::kCaptureGlobal), "begin");
  rmsnorm(p.args(), {.stream = stream});
  std::thread([&] { rmsnorm(other.args(), {.stream = own}); }).join();  // a key that nobody has loaded
  cuda::check(cu.stream_end_capture(stream, &graph), "end");
  cuda::check(cu.stream_synchronize(own), "synchronize");
  EXPECT_TRUE(within(other.dout.fetch(), other.expected()));
  cu.graph_destroy(graph), cu.stream_destroy(stream), cu.stream_destroy(own);
}

TEST_F(CudaRuntime, ManyThreadsShareTheKernels) {
  std::vector<std::thread> threads;
  std::atomic<int32_t> good{0};
  for (int32_t i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      NormProblem p(11, 520 + 8 * (i % 3), uint64_t(i));
      for (int32_t round = 0; round < 20; ++round) rmsnorm(p.args());
      good += bool(within(p.dout.fetch(), p.expected()));
    });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(good, 8);
}

TEST_F(CudaRuntime, AFailedLaunchIsAnError) {
  const cuda::Device& d = cuda::device(0);
  const jit::Unit unit = cuda::unit_from(cuda::families().front().common_lines(0).front());
  const cuda::CurrentContext current(d.primary);
  const cuda::Function f = cuda::load(unit, d, {});
  char params[256] = {};
  EXPECT_THROW(cuda::launch("rmsnorm", f, {.grid = 1, .num_threads = 2048}, params, {}), Error);
}

TEST_F(CudaRuntime, LargeBatchesAreWhole) {  // beyond 65535 rows, and beyond 2^31 bytes
  NormProblem p(70000, 64);
  rmsnorm(p.args());
  EXPECT_TRUE(within(p.dout.fetch(), p.expected()));
}

TEST_F(CudaRuntime, OffsetsAre64Bit) {
  constexpr int64_t kRowStride = int64_t(1) << 31;  // elements: the second row starts 4 GiB after the first
  const cuda::CurrentContext current(cuda::device(0).primary);
  driver::Pointer memory = 0;
  if (driver::api().memory_alloc(&memory, size_t(2 * kRowStride + 4096)) != 0) GTEST_SKIP() << "too little memory";
  NormProblem p(2, 256);
  TensorView far = p.args().input;
  far.data = reinterpret_cast<void*>(memory);
  far.strides[0] = kRowStride;
  for (int64_t row = 0; row < 2; ++row)
    gpu_copy(far.as<char>() + row * kRowStride * 2, static_cast<char*>(p.args().input.data) + row * 512, 512);
  RmsNormArgs args = p.args();
  args.input = far;
  rmsnorm(args);
  EXPECT_TRUE(within(p.dout.fetch(), p.expected()));
  driver::api().memory_free(memory);
}

}  // namespace
}  // namespace fulmen::testing
