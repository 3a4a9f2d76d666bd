// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/pack.h"

#include <fulmen/core/error.h>
#include <sched.h>

#include <atomic>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>
#include <thread>

#include "src/cuda/device.h"
#include "src/cuda/table.h"

namespace fulmen::cuda {
namespace {

int64_t free_megabytes() {
  std::ifstream file("/proc/meminfo");
  for (std::string word; file >> word;)
    if (word == "MemAvailable:") {
      int64_t kilobytes = 0;
      file >> kilobytes;
      return kilobytes / 1024;
    }
  return 4096;
}

PackResult build(jit::Jit& jit, const PackJob& job) {
  PackResult result{.job = job, .kernel = {}};
  try {
    jit::Origin origin{};
    const auto kernel = jit.get(unit_from(job.line), job.arch, &origin);
    result.compiled = origin == jit::Origin::kCompiled;
    result.kernel = *kernel;
    result.kernel.image.clear(), result.kernel.source.clear();
  } catch (const Error& e) { result.problem = e.message; }
  return result;
}

}  // namespace

std::vector<std::string> parse_keys(std::string_view text) {
  std::vector<std::string> lines;
  std::istringstream in{std::string(text)};
  int32_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    line = line.substr(0, line.find('#'));
    while (!line.empty() && (line.back() == ' ' || line.back() == '\r')) line.pop_back();
    if (line.empty()) continue;
    try {
      lines.push_back(unit_from(line).key);  // with its words in the house's order
    } catch (const Error& e) { throw Error(e.code, "keys, line " + std::to_string(number) + ": " + e.message); }
  }
  return lines;
}

std::vector<std::string> common_keys() {
  std::vector<std::string> lines;
  for (const Family& f : families())
    for (std::string& line : f.common_lines(0)) lines.push_back(std::move(line));
  return lines;
}

std::vector<std::string> common_keys(const std::string& target) {
  std::vector<std::string> lines;
  std::set<std::string> seen;
  for (const Family& f : families())
    for (int32_t arch : archs_of(target))
      for (std::string& line : f.common_lines(arch))
        if (seen.insert(line).second) lines.push_back(std::move(line));
  return lines;
}

std::vector<PackJob> pack_jobs(const std::vector<std::string>& targets, const std::vector<std::string>& lines,
                               bool all) {
  std::vector<PackJob> jobs;
  const std::vector<std::string> common = common_keys();
  for (const std::string& target : targets) {
    std::set<std::string> others;  // that other devices ask for
    if (!all && !archs_of(target).empty()) others = {common.begin(), common.end()};
    for (const std::string& line : others.empty() ? std::vector<std::string>() : common_keys(target))
      others.erase(line);
    for (const std::string& line : lines)
      if (!others.contains(line)) jobs.push_back({line, target});
  }
  return jobs;
}

int32_t pack_threads() {
  cpu_set_t set;
  const int32_t cpus = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return int32_t(std::max<int64_t>(1, std::min<int64_t>(cpus, free_megabytes() / 400)));
}

void build_pack(const std::string& folder, const std::vector<PackJob>& jobs, int32_t num_threads,
                const std::function<void(const PackResult&)>& on_result) {
  jit::Options options;
  options.cache_folder = folder;
  options.cache_limit_bytes = int64_t(1) << 40;
  options.must_store = true;
  jit::Jit jit(options);
  std::atomic<size_t> next{0};
  std::mutex mutex;
  const auto work = [&] {
    for (size_t i; (i = next.fetch_add(1)) < jobs.size();) {
      const PackResult result = build(jit, jobs[i]);
      const std::lock_guard lock(mutex);
      on_result(result);
    }
  };
  std::vector<std::thread> threads;
  for (int32_t i = 1; i < (num_threads > 0 ? num_threads : pack_threads()); ++i) threads.emplace_back(work);
  work();
  for (std::thread& t : threads) t.join();
}

}  // namespace fulmen::cuda
