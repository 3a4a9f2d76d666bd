// SPDX-License-Identifier: Apache-2.0
#include <fulmen/core/error.h>
#include <fulmen/runtime/thread_pool.h>
#include <sched.h>

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

namespace fulmen::runtime {
namespace {

constexpr int32_t kSpins = 4000;  // about 20 µs of pause instructions before a worker sleeps

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

}  // namespace

struct ThreadPool::Impl {
  Executor executor;
  std::vector<std::thread> threads;
  std::mutex busy;  // one job at a time; a nested or second caller runs its job alone

  std::atomic<uint32_t> generation{0};  // counts jobs; workers wait for it to change
  std::atomic<int64_t> next{0};         // next item of the job
  std::atomic<int32_t> running{0};      // workers that have not finished the job
  std::atomic<bool> stop{false};
  int64_t num_items = 0;
  Executor::Body body = nullptr;
  void* context = nullptr;

  explicit Impl(int32_t num_threads) {
    executor = {this, num_threads,
                [](void* self, int64_t n, Executor::Body f, void* c) { static_cast<Impl*>(self)->run(n, f, c); }};
    for (int32_t i = 1; i < num_threads; ++i) threads.emplace_back([this, i] { work(i); });
  }
  ~Impl() {
    stop = true;
    generation.fetch_add(1);
    generation.notify_all();
    for (std::thread& t : threads) t.join();
  }

  void take_items(int32_t thread) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < num_items;) body(context, i, thread);
  }

  void work(int32_t thread) {
    for (uint32_t seen = 0;;) {
      for (int32_t spin = 0; spin < kSpins && generation.load(std::memory_order_acquire) == seen; ++spin) pause();
      while (generation.load(std::memory_order_acquire) == seen) generation.wait(seen, std::memory_order_acquire);
      if (stop) return;
      seen = generation.load(std::memory_order_acquire);
      take_items(thread);
      if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
    }
  }

  void run(int64_t n, Executor::Body f, void* c) {
    if (!busy.try_lock()) {  // called from a body, or from a second thread meanwhile
      for (int64_t i = 0; i < n; ++i) f(c, i, 0);
      return;
    }
    const std::lock_guard lock(busy, std::adopt_lock);
    num_items = n, body = f, context = c;
    next.store(0, std::memory_order_relaxed);
    running.store(int32_t(threads.size()), std::memory_order_relaxed);
    generation.fetch_add(1, std::memory_order_release);
    generation.notify_all();
    take_items(0);
    for (int32_t spin = 0; spin < kSpins && running.load(std::memory_order_acquire) != 0; ++spin) pause();
    for (int32_t left; (left = running.load(std::memory_order_acquire)) != 0;)
      running.wait(left, std::memory_order_acquire);
  }
};

ThreadPool::ThreadPool(int32_t num_threads) : impl_(new Impl(num_threads)) {}
ThreadPool::~ThreadPool() { delete impl_; }
const Executor& ThreadPool::executor() const { return impl_->executor; }

namespace {

int32_t usable_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return int32_t(std::thread::hardware_concurrency());
}

int32_t first_num_threads() {
  if (const char* text = std::getenv("FULMEN_NUM_THREADS")) {
    const int32_t n = std::atoi(text);
    if (n >= 1 && n <= 1024) return n;
  }
  return usable_cpus() < 1 ? 1 : usable_cpus();
}

struct Default {
  std::mutex mutex;
  int32_t num_threads = first_num_threads();
  ThreadPool* pool = nullptr;
};
Default& the_default() {
  static Default* d = new Default;  // never destroyed: other statics' destructors may still compute
  return *d;
}

}  // namespace

const Executor& default_executor() {
  Default& d = the_default();
  const std::lock_guard lock(d.mutex);
  if (d.pool == nullptr) d.pool = new ThreadPool(d.num_threads);
  return d.pool->executor();
}

int32_t num_threads() {
  Default& d = the_default();
  const std::lock_guard lock(d.mutex);
  return d.num_threads;
}

void set_num_threads(int32_t n) {
  require(n >= 1 && n <= 1024, "set_num_threads", "n", n, "1 to 1024");
  Default& d = the_default();
  const std::lock_guard lock(d.mutex);
  if (n == d.num_threads) return;
  delete d.pool;
  d.pool = nullptr;
  d.num_threads = n;
}

}  // namespace fulmen::runtime
