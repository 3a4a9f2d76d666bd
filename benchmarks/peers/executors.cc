// SPDX-License-Identifier: Apache-2.0
// Which threads should a kernel run on? Times a parallel region of the library's pool, of OpenMP (GCC's runtime) and of
// pthreadpool: an empty one, one of 16 items of 20 µs handed out one by one, and both again while another process keeps
// one CPU busy. Prints one JSON object. Built by hand, not with the library:
//   g++ -O2 -std=c++20 -fopenmp -Iinclude -I. benchmarks/peers/executors.cc -Lbuild/release -lfulmen -lpthreadpool
#include <fulmen/runtime/openmp_executor.h>
#include <fulmen/runtime/thread_pool.h>
#include <pthreadpool.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace fulmen {
namespace {

using Clock = std::chrono::steady_clock;

double us_since(Clock::time_point start) {
  return std::chrono::duration<double, std::micro>(Clock::now() - start).count();
}

void work_for(double us) {
  for (const auto start = Clock::now(); us_since(start) < us;) {}
}

struct PThreadPoolCall {
  Executor::Body body;
  void* context;
};

Executor pthreadpool_executor(pthreadpool_t pool) {
  return {pool, int32_t(pthreadpool_get_threads_count(pool)),
          [](void* self, int64_t num_items, Executor::Body body, void* context) {
            PThreadPoolCall call{body, context};
            pthreadpool_parallelize_1d(
                static_cast<pthreadpool_t>(self),
                [](void* c, size_t i) {
                  auto* p = static_cast<PThreadPoolCall*>(c);
                  p->body(p->context, int64_t(i), 0);
                },
                &call, size_t(num_items), 0);
          }};
}

struct Times {
  double best, median, mean, p90;
};

// A pause between regions stands for what an engine does between two kernels.
Times time_regions(const Executor& executor, int64_t num_items, double item_us, double pause_us, int32_t rounds) {
  std::vector<double> times;
  for (int32_t i = 0; i < rounds; ++i) {
    work_for(pause_us);
    const auto start = Clock::now();
    parallel_for(executor, num_items, [&](int64_t, int32_t) { work_for(item_us); });
    times.push_back(us_since(start));
  }
  double sum = 0;
  for (double t : times) sum += t;
  std::sort(times.begin(), times.end());
  return {times[0], times[times.size() / 2], sum / rounds, times[times.size() * 9 / 10]};
}

void report(const char* name, const char* scene, const Executor& e, bool last) {
  const Times empty = time_regions(e, e.num_threads, 0, 3, 5000);
  const Times rested = time_regions(e, e.num_threads, 0, 500, 300);  // workers asleep
  const Times work = time_regions(e, 16, 20, 3, 500);
  const auto print = [](const char* what, Times t, const char* end) {
    std::printf("\"%s\": {\"best\": %.2f, \"median\": %.2f, \"mean\": %.2f, \"p90\": %.2f}%s", what, t.best, t.median,
                t.mean, t.p90, end);
  };
  std::printf("  {\"executor\": \"%s\", \"scene\": \"%s\", ", name, scene);
  print("empty_us", empty, ", ");
  print("empty_after_500us_us", rested, ", ");
  print("16_items_of_20us_us", work, last ? "}\n" : "},\n");
  std::fflush(stdout);
}

void report_all(const char* scene, int32_t num_threads, bool last) {
  runtime::ThreadPool pool(num_threads);
  report("fulmen", scene, pool.executor(), false);
  report("openmp", scene, runtime::openmp_executor(num_threads), false);
  pthreadpool_t other = pthreadpool_create(size_t(num_threads));
  report("pthreadpool", scene, pthreadpool_executor(other), last);
  pthreadpool_destroy(other);
}

pid_t busy_process_on_cpu(int cpu) {
  std::fflush(stdout);
  const pid_t pid = fork();
  if (pid != 0) return pid;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);
  for (;;) work_for(1000);
}

}  // namespace
}  // namespace fulmen

int main() {
  using namespace fulmen;
  const int32_t num_threads = int32_t(std::thread::hardware_concurrency());
  std::printf("{\"num_threads\": %d, \"rows\": [\n", num_threads);
  const pid_t busy = busy_process_on_cpu(1);
  report_all("one CPU busy", num_threads, false);
  kill(busy, SIGKILL);
  waitpid(busy, nullptr, 0);
  report_all("alone", num_threads, true);
  std::printf("]}\n");
}
