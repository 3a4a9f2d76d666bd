// SPDX-License-Identifier: Apache-2.0
#include <fulmen/runtime/thread_pool.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/levels.h"

namespace fulmen::testing {
namespace {

using runtime::ThreadPool;
using namespace std::chrono_literals;

int64_t sum_of_items(const Executor& executor, int64_t n) {
  std::atomic<int64_t> sum{0};
  parallel_for(executor, n, [&](int64_t i, int32_t) { sum += i; });
  return sum;
}

double cpu_seconds() {
  timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return double(t.tv_sec) + 1e-9 * double(t.tv_nsec);
}

TEST(ThreadPool, RunsEveryItemOnce) {
  for (int32_t threads : {1, 2, 3, 8}) {
    ThreadPool pool(threads);
    for (int64_t n : {0, 1, 2, 3, 100, 5000}) {
      std::vector<std::atomic<int32_t>> count(static_cast<size_t>(n));
      parallel_for(pool.executor(), n, [&](int64_t i, int32_t) { ++count[size_t(i)]; });
      for (const auto& c : count) ASSERT_EQ(c, 1);
    }
  }
}

TEST(ThreadPool, NoTwoBodiesAtOnceHaveTheSameThreadNumber) {
  ThreadPool pool(4);
  std::atomic<int32_t> inside[4] = {};
  std::atomic<bool> clash{false};
  for (int32_t round = 0; round < 200; ++round)
    parallel_for(pool.executor(), 64, [&](int64_t, int32_t thread) {
      if (thread < 0 || thread >= 4 || inside[thread].fetch_add(1) != 0) clash = true;
      std::this_thread::yield();
      inside[thread].fetch_sub(1);
    });
  EXPECT_FALSE(clash);
}

TEST(ThreadPool, ManyShortJobsLoseNoWakeUp) {
  ThreadPool pool(3);
  int64_t total = 0;
  for (int32_t i = 0; i < 20000; ++i) total += sum_of_items(pool.executor(), 3);
  EXPECT_EQ(total, 60000);
  for (int32_t i = 0; i < 50; ++i) {  // workers asleep in between
    std::this_thread::sleep_for(200us);
    EXPECT_EQ(sum_of_items(pool.executor(), 3), 3);
  }
}

TEST(ThreadPool, ANestedJobRunsOnItsOwnThread) {
  ThreadPool a(3), b(3);
  std::atomic<int64_t> sum{0};
  std::atomic<bool> moved{false};
  parallel_for(a.executor(), 10, [&](int64_t, int32_t) {
    const auto self = std::this_thread::get_id();
    for (const ThreadPool* pool : {&a, &b})
      parallel_for(pool->executor(), 5, [&](int64_t i, int32_t thread) {
        sum += i;
        if (thread != 0 || std::this_thread::get_id() != self) moved = true;
      });
  });
  EXPECT_EQ(sum, 10 * 2 * 10);
  EXPECT_FALSE(moved);
}

TEST(ThreadPool, CallersFromSeveralThreadsTakeTurns) {
  ThreadPool pool(3);
  std::vector<std::thread> callers;
  std::atomic<int32_t> wrong{0};
  for (int32_t c = 0; c < 4; ++c)
    callers.emplace_back([&] {
      for (int32_t i = 0; i < 300; ++i) wrong += sum_of_items(pool.executor(), 20) != 190;
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST(ThreadPool, AnExceptionReachesTheCallerAndThePoolStaysUsable) {
  ThreadPool pool(3);
  for (const Executor* executor : {&pool.executor(), &kSerialExecutor}) {
    EXPECT_THROW(parallel_for(*executor, 100,
                              [](int64_t i, int32_t) {
                                if (i % 7 == 3) throw std::runtime_error("item");
                              }),
                 std::runtime_error);
    EXPECT_EQ(sum_of_items(*executor, 100), 4950);
  }
}

TEST(ThreadPool, WorkersSleepWhenThereIsNothingToDo) {
  ThreadPool pool(2);
  sum_of_items(pool.executor(), 100);
  double least = 1;  // s, of the first interval that is good; a worker that never sleeps takes its share of a processor
  for (int32_t i = 0; i < 3 && least > 0.005; ++i) {  // in each, also on a busy machine
    const double before = cpu_seconds();
    std::this_thread::sleep_for(500ms);
    least = std::min(least, cpu_seconds() - before);
  }
  EXPECT_LT(least, 0.005);
}

TEST(ThreadPool, AParkedPoolRunsOnTheCallerAndComesBack) {
  ThreadPool pool(3);
  // Whether a worker takes part in a job whose items wait for one, a minute at most: a busy machine may be late.
  const auto has_workers = [&] {
    std::atomic<bool> seen{false};
    const auto end = std::chrono::steady_clock::now() + 60s;
    parallel_for(pool.executor(), 60, [&](int64_t, int32_t thread) {
      if (thread > 0) seen = true;
      while (!seen && std::chrono::steady_clock::now() < end) std::this_thread::sleep_for(100us);
    });
    return seen.load();
  };
  EXPECT_TRUE(has_workers());
  pool.park();
  const auto self = std::this_thread::get_id();
  std::atomic<int32_t> elsewhere{0};
  parallel_for(pool.executor(), 60, [&](int64_t, int32_t thread) {
    elsewhere += thread != 0 || std::this_thread::get_id() != self;
    std::this_thread::sleep_for(100us);
  });
  EXPECT_EQ(elsewhere, 0);
  pool.unpark();
  EXPECT_TRUE(has_workers());
}

TEST(DefaultExecutor, ThreadsMayChangeWhileOthersCompute) {
  const int32_t before = runtime::num_threads();
  std::atomic<bool> stop{false};
  std::atomic<int32_t> wrong{0};
  std::vector<std::thread> callers;
  for (int32_t c = 0; c < 2; ++c)
    callers.emplace_back([&] {
      const Executor& kept = runtime::default_executor();  // outlives every change
      while (!stop)
        wrong += sum_of_items(kept, 30) != 435, wrong += sum_of_items(runtime::default_executor(), 30) != 435;
    });
  for (int32_t i = 0; i < 60; ++i) {
    runtime::set_num_threads(1 + i % 4);
    EXPECT_EQ(runtime::num_threads(), 1 + i % 4);
    EXPECT_EQ(runtime::default_executor().num_threads, 1 + i % 4);
  }
  stop = true;
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
  runtime::set_num_threads(before);
}

TEST(DefaultExecutor, RefusesSenselessNumbers) {
  EXPECT_EQ(error_of([] { runtime::set_num_threads(0); }), "set_num_threads: n is 0, expected 1 to 1024");
  const std::string text = error_of([] {
    ThreadPool pool(2);
    parallel_for(pool.executor(), 2, [](int64_t, int32_t) { runtime::set_num_threads(1); });
  });
  EXPECT_EQ(text, "set_num_threads: was called from inside a parallel region");
}

#if !defined(__SANITIZE_THREAD__)  // TSan refuses threads in a child of a process with threads
TEST(DefaultExecutor, WorksInAForkedChildEvenIfAJobWasRunning) {
  runtime::set_num_threads(3);
  sum_of_items(runtime::default_executor(), 100);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) sum_of_items(runtime::default_executor(), 1000);
  });
  for (int32_t i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(300);  // a hang ends the child with a signal
      const bool ok = sum_of_items(runtime::default_executor(), 1000) == 499500;
      runtime::set_num_threads(2);
      _exit(ok && sum_of_items(runtime::default_executor(), 1000) == 499500 ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  stop = true;
  busy.join();
}
#endif

}  // namespace
}  // namespace fulmen::testing
