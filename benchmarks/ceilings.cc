// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/ceilings.h"

#include <fulmen/runtime/cpu_level.h>
#include <fulmen/runtime/thread_pool.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "benchmarks/ceilings_loops.h"

namespace fulmen::bench {
namespace {

const Loops& loops() {
#if defined(__x86_64__)
  switch (runtime::cpu_level()) {
    case CpuLevel::kScalar: return cpu::scalar::kLoops;
    case CpuLevel::kAvx2: return cpu::avx2::kLoops;
    case CpuLevel::kAvx512: return cpu::avx512::kLoops;
    default: return cpu::avx512_bf16::kLoops;
  }
#else
  return cpu::scalar::kLoops;
#endif
}

// Fresh pages, huge where the system grants them: the ceiling must not pay for address translation.
float* fresh_pages(size_t bytes) {
  void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) return nullptr;
  madvise(p, bytes, MADV_HUGEPAGE);
  float* data = static_cast<float*>(p);
  std::fill(data, data + bytes / sizeof(float), 1.f);
  return data;
}

std::atomic<float> sink{0};

// Best time of body, which runs once per thread, over about `seconds`.
template <class F>
double best_seconds(double seconds, F body) {
  using Clock = std::chrono::steady_clock;
  const Executor& executor = runtime::default_executor();
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  double best = 1e30;
  do {
    const auto start = Clock::now();
    parallel_for(executor, executor.num_threads, [&](int64_t part, int32_t) { body(part, executor.num_threads); });
    best = std::min(best, std::chrono::duration<double>(Clock::now() - start).count());
  } while (Clock::now() < end);
  return best;
}

}  // namespace

BandwidthProbe::BandwidthProbe(int64_t working_set_bytes) {
  constexpr int64_t kStep = 256;  // floats; every loop's unrolling divides its half
  const int64_t threads = runtime::num_threads();
  part_ = std::max<int64_t>(working_set_bytes / 4 / threads / kStep, 1) * kStep;
  bytes_ = size_t(part_ * threads) * sizeof(float);
  data_ = fresh_pages(bytes_);
}

BandwidthProbe::~BandwidthProbe() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

void BandwidthProbe::sample(double seconds) {
  if (data_ == nullptr) return;
  // Short passes are repeated inside one parallel region, so that the region's start is not counted.
  const int64_t repeat = std::max<int64_t>(1, int64_t(4e6 / double(bytes_)));
  const double read = best_seconds(seconds / 2, [&](int64_t i, int64_t) {
    for (int64_t r = 0; r < repeat; ++r) sink.store(loops().read(data_ + i * part_, part_), std::memory_order_relaxed);
  });
  const double copy = best_seconds(seconds / 2, [&](int64_t i, int64_t) {
    float* const from = data_ + i * part_;
    for (int64_t r = 0; r < repeat; ++r) loops().copy(from, from + part_ / 2, part_ / 2);
  });
  const double bytes = double(bytes_) * double(repeat);
  reads_.push_back(bytes / read);
  best_ = {std::max(best_.read, bytes / read), std::max(best_.copy, bytes / copy)};
}

double BandwidthProbe::median_read() const {
  std::vector<double> sorted = reads_;
  std::sort(sorted.begin(), sorted.end());
  return sorted.empty() ? 0 : sorted[sorted.size() / 2];
}

PeakFlops measure_flops() {
  constexpr int64_t kRounds = 200000;
  const auto rate = [](float (*loop)(int64_t)) {
    if (loop == nullptr) return 0.0;
    const double seconds =
        best_seconds(0.2, [&](int64_t, int64_t) { sink.store(loop(kRounds), std::memory_order_relaxed); });
    return double(kRounds) * loops().flops_per_round * runtime::num_threads() / seconds;
  };
  return {rate(loops().fma), 2 * rate(loops().bf16_dot)};
}

void pin_threads() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  std::vector<int> cpus;
  for (int i = 0; i < CPU_SETSIZE; ++i)
    if (CPU_ISSET(i, &allowed)) cpus.push_back(i);
  const Executor& executor = runtime::default_executor();
  std::atomic<int32_t> arrived{0};
  parallel_for(executor, executor.num_threads, [&](int64_t, int32_t thread) {
    arrived.fetch_add(1);
    while (arrived.load() < executor.num_threads) std::this_thread::yield();  // so that each thread takes one item
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(cpus[size_t(thread) % cpus.size()], &one);
    sched_setaffinity(0, sizeof one, &one);
  });
}

}  // namespace fulmen::bench
