// SPDX-License-Identifier: Apache-2.0
#include "tools/gpu/timing.h"

#include <algorithm>

namespace fulmen::gpu {

using cuda::check;

Memory::Memory(size_t num_bytes) : num_bytes_(num_bytes) {
  check(driver::api().memory_alloc(&address_, num_bytes + 1), "cuMemAlloc");
}
Memory::~Memory() { driver::api().memory_free(address_); }

Timer::Timer() : flush_(size_t(256) << 20) {
  check(driver::api().stream_create(&stream_, 1), "cuStreamCreate");  // 1: does not wait for the default stream
  check(driver::api().event_create(&start_, 0), "cuEventCreate");
  check(driver::api().event_create(&end_, 0), "cuEventCreate");
}

Timer::~Timer() {
  driver::api().event_destroy(start_);
  driver::api().event_destroy(end_);
  driver::api().stream_destroy(stream_);
}

void Timer::synchronize() { check(driver::api().stream_synchronize(stream_), "cuStreamSynchronize"); }

double Timer::once(const std::function<void()>& work, bool flush) {
  const driver::Api& cu = driver::api();
  if (flush) check(cu.memory_set(driver::Pointer(flush_.data()), 1, flush_.num_bytes(), stream_), "cuMemsetD8Async");
  check(cu.event_record(start_, stream_), "cuEventRecord");
  work();
  check(cu.event_record(end_, stream_), "cuEventRecord");
  check(cu.event_synchronize(end_), "cuEventSynchronize");
  float ms = 0;
  check(cu.event_elapsed(&ms, start_, end_), "cuEventElapsedTime");
  return double(ms) * 1e3;
}

Timing Timer::time(int32_t num_sets, const std::function<void(int32_t set)>& launch) {
  for (int32_t i = 0; i < 3; ++i) launch(i % num_sets);  // loads, warms the clocks
  synchronize();
  std::vector<double> us;
  double sum = 0;  // 41 times, but not for longer than half a second
  for (int32_t i = 0; i < 41 && (i < 7 || sum < 5e5); ++i) {
    us.push_back(once([&] { launch(i % num_sets); }, true));
    sum += us.back();
  }
  std::sort(us.begin(), us.end());
  const double median = us[us.size() / 2];
  const int32_t num_launches = median < 1000 ? 48 : median < 5000 ? 12 : 4;
  return {.us = median, .low_us = us[us.size() / 10], .graph_us = graph_time(num_sets, num_launches, launch)};
}

double Timer::graph_time(int32_t num_sets, int32_t num_launches, const std::function<void(int32_t set)>& launch) {
  const driver::Api& cu = driver::api();
  driver::Graph graph = nullptr;
  driver::GraphExec exec = nullptr;
  check(cu.stream_begin_capture(stream_, driver::kCaptureGlobal), "cuStreamBeginCapture");
  for (int32_t i = 0; i < num_launches; ++i) launch(i % num_sets);
  check(cu.stream_end_capture(stream_, &graph), "cuStreamEndCapture");
  check(cu.graph_instantiate(&exec, graph, 0), "cuGraphInstantiate");
  std::vector<double> us;
  for (int32_t i = 0; i < 7; ++i)
    us.push_back(once([&] { check(cu.graph_launch(exec, stream_), "cuGraphLaunch"); }, false));
  std::sort(us.begin(), us.end());
  cu.graph_exec_destroy(exec);
  cu.graph_destroy(graph);
  return us[us.size() / 2] / num_launches;
}

double Timer::event_us() {
  std::vector<double> us;
  for (int32_t i = 0; i < 41; ++i) us.push_back(once([] {}, true));
  std::sort(us.begin(), us.end());
  return us[us.size() / 2];
}

double Timer::copy_bytes_per_second() {
  constexpr size_t kBytes = size_t(1) << 30;
  const Memory from(kBytes), to(kBytes);
  std::vector<double> us;
  const auto copy = [&] {
    check(driver::api().memory_copy(driver::Pointer(to.data()), driver::Pointer(from.data()), kBytes, stream_),
          "cuMemcpyAsync");
  };
  check(driver::api().memory_set(driver::Pointer(from.data()), 0x3c, kBytes, stream_), "cuMemsetD8Async");
  for (int32_t i = 0; i < 15; ++i) us.push_back(once(copy, false));
  std::sort(us.begin(), us.end());
  return 2 * double(kBytes) / (us[us.size() / 2] * 1e-6);
}

}  // namespace fulmen::gpu
