// SPDX-License-Identifier: Apache-2.0
// The pool's state is one word: which job (generation), whether it can still be joined (open), how many workers are in
// it. A worker joins by adding 1 while the job is open, takes items from a shared counter, and leaves by subtracting 1.
// The caller works too; when no item is left it closes the job and waits only for those inside. A worker that the
// system has not scheduled therefore delays nobody: the job is over without it.
#include <fulmen/runtime/thread_pool.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "src/runtime/cpus.h"

namespace fulmen::runtime {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kSpin = std::chrono::microseconds(30);  // then a waiting thread sleeps
constexpr uint32_t kWorkers = 0x7fff, kOpen = 0x8000, kGeneration = 0x10000;

thread_local bool inside_a_body = false;  // of any pool: a nested job runs on its own thread, so pools cannot deadlock

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#endif
}

// True as soon as ready() is; false after `limit`. The length of a pause instruction differs tenfold between
// processors, so time is measured, not counted.
template <class F>
bool spin_until(F ready, Clock::duration limit) {
  if (ready()) return true;
  if (limit == Clock::duration::zero()) return false;
  for (const auto end = Clock::now() + limit;;) {
    for (int32_t i = 0; i < 16; ++i) {
      if (ready()) return true;
      pause();
    }
    if (Clock::now() >= end) return false;
  }
}

struct Job {
  int64_t num_items = 0;
  Executor::Body body = nullptr;
  void* context = nullptr;
  std::atomic<int64_t> next{0};

  void take_items(int32_t thread) {
    const bool outer = inside_a_body;
    inside_a_body = true;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < num_items;) body(context, i, thread);
    inside_a_body = outer;
  }
};

// The threads of a pool and what they share. A forked child abandons its copy, whose threads do not exist there.
struct Crew {
  std::mutex turn;  // held by the caller whose job runs
  std::vector<std::thread> threads;
  Clock::duration spin;
  Job job;
  std::atomic<bool> stopping{false};
  alignas(64) std::atomic<uint32_t> state{0};  // generation, open, workers inside
  alignas(64) std::atomic<uint32_t> empty{0};  // counts the times that the last worker left a closed job

  void start(int32_t num_threads) {
    spin = num_threads <= num_usable_cpus() ? kSpin : Clock::duration::zero();
    const uint32_t born = state.load() / kGeneration;  // the next job is another one
    const std::vector<int32_t> homes = homes_of_workers(num_threads);
    try {
      for (int32_t i = 1; i < num_threads; ++i)
        threads.emplace_back([this, i, born, home = homes.empty() ? -1 : homes[size_t(i - 1)]] {
          if (home >= 0) move_this_thread_to(home);
          work(i, born);
        });
    } catch (const std::system_error&) {
      // The system gives no more threads: those that exist, and the caller, do the work.
    }
  }

  void stop() {
    stopping = true;
    state.fetch_add(kGeneration);
    state.notify_all();
    for (std::thread& t : threads) t.join();
    threads.clear();
    stopping = false;
  }

  void open() {
    const uint32_t generation = state.load(std::memory_order_relaxed) / kGeneration + 1;
    state.store(generation * kGeneration | kOpen);  // sequentially consistent: notify must see who sleeps already
    state.notify_all();
  }

  void close() {
    state.fetch_and(~kOpen, std::memory_order_acq_rel);
    const auto left = [&] { return (state.load(std::memory_order_acquire) & kWorkers) == 0; };
    while (!spin_until(left, spin)) {
      const uint32_t count = empty.load(std::memory_order_acquire);
      if (left()) return;
      empty.wait(count, std::memory_order_acquire);
    }
  }

  void leave() {
    const uint32_t before = state.fetch_sub(1, std::memory_order_acq_rel);
    if ((before & (kOpen | kWorkers)) != 1) return;
    empty.fetch_add(1, std::memory_order_release);
    empty.notify_one();
  }

  void work(int32_t thread, uint32_t seen) {
    for (;;) {
      uint32_t now = 0;
      const auto has_news = [&] {
        now = state.load(std::memory_order_acquire);
        return stopping.load(std::memory_order_acquire) || ((now & kOpen) != 0 && now / kGeneration != seen);
      };
      while (!spin_until(has_news, spin))
        if (!has_news()) state.wait(now, std::memory_order_acquire);
      if (stopping) return;
      if (!state.compare_exchange_strong(now, now + 1, std::memory_order_acq_rel)) continue;
      seen = now / kGeneration;
      job.take_items(thread);
      leave();
    }
  }
};

}  // namespace

struct ThreadPool::Impl {
  Executor executor;
  std::atomic<Crew*> crew{new Crew};
  bool parked = false;  // guarded by the crew's turn

  explicit Impl(int32_t num_threads)
      : executor{this, num_threads, [](void* self, int64_t n, Executor::Body body, void* context) {
                   static_cast<Impl*>(self)->run(n, body, context);
                 }} {
    const std::lock_guard lock(all().mutex);
    all().pools.push_back(this);
  }
  ~Impl() {
    {
      const std::lock_guard lock(all().mutex);
      std::erase(all().pools, this);
    }
    crew.load()->stop();
    delete crew.load();
  }

  void run(int64_t num_items, Executor::Body body, void* context) {
    if (inside_a_body) return run_alone(num_items, body, context);
    Crew& c = *crew.load(std::memory_order_acquire);
    const std::lock_guard lock(c.turn);
    if (parked) return run_alone(num_items, body, context);
    if (c.threads.empty()) c.start(executor.num_threads);
    c.job.num_items = num_items, c.job.body = body, c.job.context = context;
    c.job.next.store(0, std::memory_order_relaxed);
    c.open();
    c.job.take_items(0);
    c.close();
  }

  static void run_alone(int64_t num_items, Executor::Body body, void* context) {
    for (int64_t i = 0; i < num_items; ++i) body(context, i, 0);
  }

  void park(bool value) {
    Crew& c = *crew.load(std::memory_order_acquire);
    const std::lock_guard lock(c.turn);
    parked = value;
    if (parked) c.stop();
  }

  // Every pool of the process, for fork: a child has only the thread that called fork. Its pools start new workers at
  // their next job; the old crews, perhaps locked by a thread that is gone, are left where they are.
  struct All {
    std::mutex mutex;
    std::vector<Impl*> pools;
  };
  static All& all() {
    static All* a = [] {
      pthread_atfork([] { all().mutex.lock(); }, [] { all().mutex.unlock(); },
                     [] {
                       for (Impl* pool : all().pools) pool->crew.store(new Crew);
                       inside_a_body = false;
                       all().mutex.unlock();
                     });
      return new All;
    }();
    return *a;
  }
};

ThreadPool::ThreadPool(int32_t num_threads) : impl_(new Impl(num_threads)) {}
ThreadPool::~ThreadPool() { delete impl_; }
const Executor& ThreadPool::executor() const { return impl_->executor; }
void ThreadPool::park() { impl_->park(true); }
void ThreadPool::unpark() { impl_->park(false); }
bool ThreadPool::calling_from_a_body() { return inside_a_body; }

}  // namespace fulmen::runtime
