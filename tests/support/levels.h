// SPDX-License-Identifier: Apache-2.0
// What a CPU test runs over: every instruction set that this machine has, with one and with several threads.
#pragma once
#include <fulmen/core/error.h>
#include <fulmen/runtime/cpu_level.h>
#include <fulmen/runtime/thread_pool.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fulmen::testing {

inline std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> all;
  for (CpuLevel l : {CpuLevel::kScalar, CpuLevel::kAvx2, CpuLevel::kAvx512, CpuLevel::kAvx512Bf16})
    if (l <= runtime::cpu_level()) all.push_back(l);
  return all;
}

inline const Executor& three_threads() {
  static runtime::ThreadPool* pool = new runtime::ThreadPool(3);
  return pool->executor();
}

inline Context at(CpuLevel level) { return {.executor = &three_threads(), .max_cpu_level = level}; }

// The text of the Error that f throws, or "nothing was thrown".
template <class F>
std::string error_of(F f) {
  try {
    f();
  } catch (const Error& e) { return e.what(); }
  return "nothing was thrown";
}

}  // namespace fulmen::testing
