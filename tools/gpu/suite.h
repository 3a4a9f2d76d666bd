// SPDX-License-Identifier: Apache-2.0
// The rows of the GPU benchmark: ids and shapes of the project's standard table.
#pragma once
#include <fulmen/core/context.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace fulmen::gpu {

// One row on its own buffers, several sets of them, so that no launch finds its data in L2.
struct Problem {
  int32_t num_sets = 1;
  int32_t num_calls = 1;  // that a launch makes; times are of one
  double bytes = 0;       // what the op must move
  bool host = false;      // what is timed is the calling thread
  double flops = 0;       // and multiply, where tensor cores set the floor
  std::function<void(int32_t set, const Context& context)> launch;
};

struct Row {
  std::string id, shape;
  std::function<Problem()> make;
};

std::vector<Row> suite();
std::vector<Row> attention_suite();
std::vector<Row> cascade_suite(bool sweep);  // C1; or prefix lengths, batch sizes and heads
std::vector<Row> plan_suite();               // what attention's planning costs
std::vector<Row> sampling_suite();           // S1 to S8

// Writes and prints how fast the kernels of a pack or cache folder are found. Not 0: one was not. Needs no GPU.
int measure_jit(const std::string& path, const std::string& folder);

// What a call costs the calling thread; how: "stub" (without the driver's part; needs no GPU) or empty.
int measure_host(const std::string& path, const std::string& how);

// For the heads of result files: FULMEN_COMMIT, and YYYY-MM-DD.
std::string commit();
std::string today();

}  // namespace fulmen::gpu
