// SPDX-License-Identifier: Apache-2.0
// Tests of a CUDA device: chosen once per program, skipped with a reason where there is none.
#pragma once
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "src/cuda/device.h"
#include "tests/simt/simt.h"
#include "tests/support/gpu_tensor.h"

namespace fulmen::testing {

inline bool emulated() {
  const char* device = std::getenv("FULMEN_TEST_DEVICE");
  return device != nullptr && std::string(device) == "simt";
}

// The 16-bit dtype of most cases: sm_75 has no bf16.
inline DType half_dtype() { return cuda::device(0).arch < 80 ? DType::kF16 : DType::kBF16; }

// The file that kernels' keys go to instead of kernels to a device; null: they run.
inline const char* lists_keys() { return std::getenv("FULMEN_TEST_LIST_KEYS"); }

// Before the first use of CUDA.
inline void choose_device() {
  if (lists_keys()) return simt::install_lister(lists_keys());
  if (emulated()) simt::install(FULMEN_SOURCE_DIR, FULMEN_BINARY_DIR "/simt_cache");
}

class OnGpu : public ::testing::Test {
 protected:
  void SetUp() override {
    if (cuda::num_devices() > 0) return;
    GTEST_SKIP() << "no CUDA device: "
                 << (cuda::driver::problem().empty() ? "the driver lists none" : cuda::driver::problem());
  }
};

// How often a test repeats itself: FULMEN_TEST_ROUNDS at most, as a sanitizer makes each a hundred times as long.
inline int32_t rounds(int32_t usual) {
  const char* most = std::getenv("FULMEN_TEST_ROUNDS");
  return most == nullptr ? usual : std::clamp(std::atoi(most), 1, usual);
}

// Whether tests should leave out some of their sizes.
inline bool is_slow() { return emulated() || std::getenv("FULMEN_TEST_ROUNDS") != nullptr; }

// A case that takes the emulator too long.
inline bool too_long_for_emulator(int64_t elements) { return emulated() && elements > 300000; }

// The emulator compiles a unit in about a second: it leaves out f16, whose kernels differ from bf16's by a conversion.
inline std::vector<DType> float_types() {
  if (emulated()) return {DType::kF32, DType::kBF16};
  return {DType::kF32, DType::kF16, DType::kBF16};
}

}  // namespace fulmen::testing
