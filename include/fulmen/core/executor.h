// SPDX-License-Identifier: Apache-2.0
// Whose threads a CPU kernel runs on. A struct of two function pointers, so that a serving engine can bring its own
// pool and header-only users need no library. The library's own pool: runtime/thread_pool.h.
// OpenMP's threads: runtime/openmp_executor.h.
#pragma once
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <type_traits>

namespace fulmen {

struct Executor {
  // Called once per item, each item on one thread; thread in 0..num_threads-1, never two at once with the same number.
  using Body = void (*)(void* context, int64_t item, int32_t thread);

  void* self = nullptr;
  int32_t num_threads = 1;
  // Runs body for 0..num_items-1 in any order and returns when all are done. Bodies do not throw.
  void (*run)(void* self, int64_t num_items, Body body, void* context) = nullptr;  // null: the calling thread runs all
};

inline constexpr Executor kSerialExecutor{};  // no threads at all: for tests and for embedding

// What crosses an executor for a C++ body: the body, and the first exception that one of its calls threw.
template <class F>
struct GuardedBody {
  F& body;
  std::atomic<bool> failed{false};
  std::exception_ptr error = nullptr;

  static void call(void* context, int64_t item, int32_t thread) noexcept {
    auto& self = *static_cast<GuardedBody*>(context);
    if (self.failed.load(std::memory_order_relaxed)) return;
    try {
      self.body(item, thread);
    } catch (...) {
      if (!self.failed.exchange(true)) self.error = std::current_exception();
    }
  }
};

// body(item, thread) for every item. Where a call throws, the items not begun are skipped and the caller gets the
// exception: none ever crosses the executor, which may be another runtime's.
template <class F>
void parallel_for(const Executor& executor, int64_t num_items, F&& body) {
  if (executor.run == nullptr || num_items <= 1 || executor.num_threads <= 1) {
    for (int64_t i = 0; i < num_items; ++i) body(i, int32_t(0));
    return;
  }
  using Guarded = GuardedBody<std::remove_reference_t<F>>;
  Guarded guarded{body};
  executor.run(executor.self, num_items, &Guarded::call, &guarded);
  if (guarded.error) std::rethrow_exception(guarded.error);
}

// The same in chunks: body(begin, end, thread). For many small items, where a call per item would cost more than the
// item.
template <class F>
void parallel_chunks(const Executor& executor, int64_t num_items, int64_t min_chunk, F&& body) {
  const int64_t most = int64_t(executor.num_threads) * 4;
  const int64_t fit = num_items / (min_chunk < 1 ? 1 : min_chunk);
  const int64_t num_chunks = fit < 1 ? 1 : (fit < most ? fit : most);
  parallel_for(executor, num_items == 0 ? 0 : num_chunks, [&](int64_t chunk, int32_t thread) {
    body(num_items * chunk / num_chunks, num_items * (chunk + 1) / num_chunks, thread);
  });
}

}  // namespace fulmen
