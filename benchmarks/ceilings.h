// SPDX-License-Identifier: Apache-2.0
// What this machine can do right now, measured in the process that times the kernels: the denominators of "% of the
// floor". Both bandwidths depend on the working set (L2, L3, DRAM), so they are asked for by its size.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fulmen::bench {

struct Bandwidth {
  double read = 0, copy = 0;  // bytes/s over all threads; copy counts what it reads and what it writes
};

// Memory of its own, of the size of a working set. Other users of the machine's memory come and go: sample() between
// the runs of a kernel, for some milliseconds, and compare best with best.
class BandwidthProbe {
 public:
  explicit BandwidthProbe(int64_t working_set_bytes);
  ~BandwidthProbe();
  BandwidthProbe(const BandwidthProbe&) = delete;
  BandwidthProbe& operator=(const BandwidthProbe&) = delete;
  void sample(double seconds);
  Bandwidth best() const { return best_; }
  double median_read() const;  // of the samples

 private:
  int64_t part_;  // floats of one thread
  size_t bytes_;
  float* data_;
  Bandwidth best_;
  std::vector<double> reads_;
};

struct PeakFlops {
  double f32 = 0, bf16 = 0;  // FMA, and products of bf16 pairs summed in f32 (0: no such instruction)
};
PeakFlops measure_flops();  // per second over all threads, at the process's CPU level

// Binds thread i of the default executor to the i-th CPU of the process's affinity mask.
void pin_threads();

}  // namespace fulmen::bench
