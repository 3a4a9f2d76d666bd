// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <vector>

namespace fulmen::runtime {

// CPUs that this process may use: its affinity mask, and in a container the quota of its cgroup, whichever is less.
int32_t num_usable_cpus();

// A CPU for each worker of a pool that takes the whole machine: all but the caller's. A woken worker is otherwise put
// on its waker's CPU when no CPU is idle, and gets to run when the job is over. Empty for smaller pools: several of
// them may share the machine, and the system spreads them better.
std::vector<int32_t> homes_of_workers(int32_t num_threads);
void move_this_thread_to(int32_t cpu);

}  // namespace fulmen::runtime
