// SPDX-License-Identifier: Apache-2.0
// Timing kernels on a GPU with events, each launch with a cold L2.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "src/cuda/device.h"

namespace fulmen::gpu {

namespace driver = cuda::driver;

class Memory {
 public:
  explicit Memory(size_t num_bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  char* data() const { return reinterpret_cast<char*>(address_); }
  size_t num_bytes() const { return num_bytes_; }

 private:
  driver::Pointer address_ = 0;
  size_t num_bytes_;
};

struct Timing {
  double us = 0;        // median of single launches, each after L2 was overwritten
  double low_us = 0;    // 10th percentile
  double graph_us = 0;  // per launch, in a graph of many with rotating data: what a captured model pays
};

class Timer {
 public:
  Timer();
  ~Timer();
  driver::Stream stream() const { return stream_; }
  // launch(set) with set in 0..num_sets-1, on stream().
  Timing time(int32_t num_sets, const std::function<void(int32_t set)>& launch);
  // What events alone report around an empty span, microseconds.
  double event_us();
  // Read plus written bytes per second of a device-to-device copy of 1 GiB.
  double copy_bytes_per_second();
  void synchronize();

 private:
  double once(const std::function<void()>& work, bool flush);
  double graph_time(int32_t num_sets, int32_t num_launches, const std::function<void(int32_t set)>& launch);
  driver::Stream stream_ = nullptr;
  driver::Event start_ = nullptr, end_ = nullptr;
  Memory flush_;
};

}  // namespace fulmen::gpu
