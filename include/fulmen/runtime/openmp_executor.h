// SPDX-License-Identifier: Apache-2.0
// Runs kernels on the OpenMP threads of the program that includes this (compile it with -fopenmp). The library itself
// links no OpenMP runtime, so a host's own is never joined by a second one.
#pragma once
#include <fulmen/core/executor.h>
#include <omp.h>

namespace fulmen::runtime {

inline Executor openmp_executor(int32_t num_threads = omp_get_max_threads()) {
  return {.self = reinterpret_cast<void*>(intptr_t(num_threads)),  // a number, never followed
          .num_threads = num_threads,
          .run = [](void* self, int64_t num_items, Executor::Body body, void* context) {
            const int num_threads_of_team = int(reinterpret_cast<intptr_t>(self));
#pragma omp parallel for schedule(dynamic, 1) num_threads(num_threads_of_team)
            for (int64_t i = 0; i < num_items; ++i) body(context, i, omp_get_thread_num());
          }};
}

}  // namespace fulmen::runtime
