// SPDX-License-Identifier: Apache-2.0
// The process-wide pool. A pool lives as long as the process: an Executor that a caller still holds stays valid when
// the number of threads changes, it only loses its workers. There is one pool per number of threads that was ever asked
// for.
#include <fulmen/core/error.h>
#include <fulmen/runtime/environment.h>
#include <fulmen/runtime/thread_pool.h>
#include <pthread.h>

#include <map>
#include <mutex>
#include <new>

#include "src/runtime/cpus.h"

namespace fulmen::runtime {
namespace {

constexpr int32_t kMostThreads = 1024;

int32_t first_num_threads() { return int32_t(integer_of("FULMEN_NUM_THREADS", 1, kMostThreads, num_usable_cpus())); }

struct Default {
  std::mutex setting;  // one set_num_threads at a time; held while a job ends
  std::mutex mutex;    // guards the rest; never held for long, bodies take it too
  int32_t num_threads = first_num_threads();
  std::map<int32_t, ThreadPool*> pools;

  ThreadPool& pool() {
    ThreadPool*& p = pools[num_threads];
    if (p == nullptr) p = new ThreadPool(num_threads);
    return *p;
  }
};

Default& the_default() {
  static Default* d = [] {
    // Before our own fork handlers those of all pools: fork runs them last to first, and so takes our mutex before
    // theirs, as pool() does. The other way round a fork beside a first call could wait for ever.
    { const ThreadPool first(1); }
    auto* made = new Default;  // never destroyed: other statics' destructors may still compute
    pthread_atfork([] { the_default().mutex.lock(); }, [] { the_default().mutex.unlock(); },
                   [] {
                     the_default().mutex.unlock();
                     new (&the_default().setting) std::mutex;  // its holder does not exist in the child
                   });
    return made;
  }();
  return *d;
}

}  // namespace

const Executor& default_executor() {
  Default& d = the_default();
  const std::lock_guard lock(d.mutex);
  return d.pool().executor();
}

int32_t num_threads() {
  Default& d = the_default();
  const std::lock_guard lock(d.mutex);
  return d.num_threads;
}

void set_num_threads(int32_t n) {
  require(n >= 1 && n <= kMostThreads, "set_num_threads", "n", n, "1 to 1024");
  if (ThreadPool::calling_from_a_body()) fail("set_num_threads", "", "was called from inside a parallel region");
  Default& d = the_default();
  const std::lock_guard one_at_a_time(d.setting);
  ThreadPool *old = nullptr, *next = nullptr;
  {
    const std::lock_guard lock(d.mutex);
    if (n == d.num_threads) return;
    old = &d.pool();
    d.num_threads = n;
    next = &d.pool();
  }
  next->unpark();
  old->park();  // waits for its job
}

}  // namespace fulmen::runtime
