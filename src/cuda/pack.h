// SPDX-License-Identifier: Apache-2.0
// Ahead-of-time compilation: a pack is a folder of kernel files, filled from a list of keys on any machine with NVRTC,
// with or without a GPU, and searched through FULMEN_PACK_PATH.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "src/jit/entry.h"

namespace fulmen::cuda {

struct PackJob {
  std::string line;  // of a list of keys
  std::string arch;
};
struct PackResult {
  PackJob job;
  jit::Kernel kernel;     // without source and image
  bool compiled = false;  // false: the pack had it
  std::string problem;    // empty: fine
};

// Lines that are neither empty nor comments (#). Throws kInvalidArgument on a line that no op knows.
std::vector<std::string> parse_keys(std::string_view text);

// What `fulmen_pack keys` prints: the kernels that serving usual models needs, on devices of any architecture known
// here or on those that run a target's.
std::vector<std::string> common_keys();
std::vector<std::string> common_keys(const std::string& target);

// A job for each target and line, but for common keys that no device of that target asks for. all: those too.
std::vector<PackJob> pack_jobs(const std::vector<std::string>& targets, const std::vector<std::string>& lines,
                               bool all);

// Compiles what the pack lacks, on up to num_threads threads (0: as the CPUs and the free memory allow). on_result is
// called once per job, one call at a time, in any order. Jobs go on after one that fails.
void build_pack(const std::string& folder, const std::vector<PackJob>& jobs, int32_t num_threads,
                const std::function<void(const PackResult&)>& on_result);

// Threads that the machine bears: one per usable CPU, and 400 MB of free memory each.
int32_t pack_threads();

}  // namespace fulmen::cuda
