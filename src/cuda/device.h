// SPDX-License-Identifier: Apache-2.0
// What is known about a GPU, asked once per process; and making it the current one for the length of a call.
#pragma once
#include <fulmen/runtime/backend.h>

#include <string>
#include <vector>

#include "src/cuda/driver.h"

namespace fulmen::cuda {

struct Device {
  int32_t id = 0;
  driver::Context primary = nullptr;  // the context that PyTorch and the runtime API use; retained for the process
  int32_t arch = 0;                   // 10 * major + minor
  int32_t num_sms = 0;
  int32_t max_shared_bytes = 0;  // per CTA, after opting in
  int64_t l2_bytes = 0;
  std::string name;
  std::vector<std::string> targets;  // what to compile for, then what else it runs

  runtime::DeviceInfo info() const {
    return {.type = DeviceType::kCuda, .id = id, .arch = arch, .num_workers = num_sms};
  }
};

int32_t num_devices();             // 0 without a driver
const Device& device(int32_t id);  // throws Error

// Shared memory that a CTA may opt in to, by compute capability.
int32_t shared_bytes_of(int32_t arch);
// "sm_90a" for 90: the target whose kernels may use all of an architecture's instructions. An unknown minor version
// maps to the nearest known one below; an unknown major one to PTX, which the driver compiles.
std::string target_of(int32_t arch);
// The target, then those of the same major version below it, whose machine code the device runs too.
std::vector<std::string> targets_of(int32_t arch);
// Of the architectures known here, those whose devices run a target's machine code; PTX: all from its own on.
std::vector<int32_t> archs_of(const std::string& target);

// Makes a context current and restores what was current before.
class CurrentContext {
 public:
  explicit CurrentContext(driver::Context context);
  ~CurrentContext();
  CurrentContext(const CurrentContext&) = delete;
  CurrentContext& operator=(const CurrentContext&) = delete;

 private:
  bool pushed_ = false;
};

}  // namespace fulmen::cuda
