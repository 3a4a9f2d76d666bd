// SPDX-License-Identifier: Apache-2.0
#include "src/runtime/cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

namespace fulmen::runtime {
namespace {

int32_t cpus_of_mask() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
  return int32_t(std::thread::hardware_concurrency());  // more CPUs than the set can hold
}

// cpu.max of cgroup 2 is "quota period" in microseconds, or "max period".
int32_t cpus_of_quota(int32_t most) {
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return most;
  return int32_t(std::ceil(std::strtod(quota.c_str(), nullptr) / period));
}

}  // namespace

int32_t num_usable_cpus() {
  const int32_t mask = cpus_of_mask();
  return std::max(1, std::min(mask, cpus_of_quota(mask)));
}

std::vector<int32_t> homes_of_workers(int32_t num_threads) {
  std::vector<int32_t> homes;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0 || CPU_COUNT(&set) != num_threads) return homes;
  const int32_t own = sched_getcpu();
  for (int32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu)
    if (CPU_ISSET(cpu, &set) && cpu != own) homes.push_back(cpu);
  if (int32_t(homes.size()) != num_threads - 1) homes.clear();
  return homes;
}

void move_this_thread_to(int32_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  sched_setaffinity(0, sizeof set, &set);  // if refused, the thread stays where it is: only slower
}

}  // namespace fulmen::runtime
