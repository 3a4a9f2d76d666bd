// SPDX-License-Identifier: Apache-2.0
// The library's own threads, for callers who bring none. Workers spin for a moment after a job, then sleep, so that a
// decode step's next kernel starts in about a microsecond and an idle process burns nothing.
#pragma once
#include <fulmen/core/executor.h>

namespace fulmen::runtime {

// The process-wide pool, created at first use with num_threads(). Safe to call from several threads: jobs take turns.
// A job started inside another one's body runs on that thread alone.
const Executor& default_executor();

// Threads of the default pool, the caller's included. First value: FULMEN_NUM_THREADS, else the CPUs that this process
// may use (affinity mask, cgroup quota).
int32_t num_threads();

// Throws unless 1 <= n <= 1024. Waits for a running job. An Executor got before stays valid but runs on one thread.
void set_num_threads(int32_t n);

// A pool of one's own, for tests and for engines with several. Its threads start with its first job, also in a child
// after fork.
class ThreadPool {
 public:
  explicit ThreadPool(int32_t num_threads);
  ~ThreadPool();  // no job may run
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  const Executor& executor() const;

  void park();  // ends the workers after the running job; until unpark() jobs run on their callers alone
  void unpark();
  static bool calling_from_a_body();

 private:
  struct Impl;
  Impl* impl_;
};

}  // namespace fulmen::runtime
