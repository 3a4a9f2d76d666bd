// SPDX-License-Identifier: Apache-2.0
// The harness of every benchmarks/<op>_bench.cc, on Google Benchmark. A row is an id, a shape and a function that
// builds a Subject: what to run, how to check it, what it costs, and whom to compare with. The harness pins the
// threads, checks the result before timing it (a wrong result is not timed), measures the bandwidth of the same working
// set before, between and after the runs, and prints the best time, GB/s and the share of the floor reached.
// --json=FILE also writes the results as a file.
//   fulmen::bench::add("rmsnorm/f32", "2048x4096", [] { return fulmen::bench::Subject{...}; });
//   int main(int argc, char** argv) { return fulmen::bench::run(argc, argv, "rmsnorm"); }
#pragma once
#include <fulmen/core/cost.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace fulmen::bench {

struct Subject {
  std::function<void()> run;                          // one call of the op
  std::function<::testing::AssertionResult()> check;  // after one run: is the result within the reference's bound?
  Cost cost;                                          // cost(args)
  double footprint_bytes = 0;                         // memory touched; 0: cost.bytes. Less when in place
  bool bf16_products = false;  // the floor is that of bf16 pairs, where the CPU has them, not of f32 FMAs
  std::vector<std::pair<std::string, std::function<void()>>> peers;  // what users would pick instead, same shape
  std::function<void()> before_each = {};  // not timed: puts back what an in-place run changed
};

// make is called when the row runs, so rows that a filter leaves out cost nothing.
void add(std::string id, std::string shape, std::function<Subject()> make);

// Runs the rows that the Google Benchmark flags choose. --json=FILE writes
//   {device, level, num_threads, commit, date, suite, ceilings, rows: [{id, shape, us, floor_us, peers, …}]}.
// FULMEN_NUM_THREADS and FULMEN_CPU_LEVEL choose threads and instruction set.
int run(int argc, char** argv, const std::string& suite);

}  // namespace fulmen::bench
