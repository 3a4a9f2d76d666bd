// SPDX-License-Identifier: Apache-2.0
// The library's own threads, for callers who bring none. Workers spin for a moment after a job, then sleep, so that a
// decode step's next kernel starts in about a microsecond and an idle process burns nothing.
#pragma once
#include <fulmen/core/executor.h>

namespace fulmen::runtime {

// The process-wide pool, created at first use with num_threads(). Safe to call from several threads: jobs take turns.
const Executor& default_executor();

// Threads of the default pool, the caller's included. First value: FULMEN_NUM_THREADS, else the CPUs of the affinity
// mask.
int32_t num_threads();
void set_num_threads(int32_t n);  // throws unless 1 <= n <= 1024; the pool is rebuilt at its next use

// A pool of one's own, for tests and for engines with several.
class ThreadPool {
 public:
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  const Executor& executor() const;

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace fulmen::runtime
