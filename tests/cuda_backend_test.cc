// SPDX-License-Identifier: Apache-2.0
// What the CUDA backend says of itself where no GPU is needed: targets, and what is missing without a driver.
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/runtime/registry.h>
#include <gtest/gtest.h>

#include "src/cuda/table.h"

namespace fulmen::testing {
namespace {

TEST(CudaTargets, AreTheNearestThatADeviceRuns) {
  EXPECT_EQ(cuda::target_of(75), "sm_75");
  EXPECT_EQ(cuda::target_of(87), "sm_87");
  EXPECT_EQ(cuda::target_of(88), "sm_87");  // machine code of a lower minor version
  EXPECT_EQ(cuda::target_of(90), "sm_90a");
  EXPECT_EQ(cuda::target_of(101), "compute_100");  // 'a' code runs on its own version alone
  EXPECT_EQ(cuda::target_of(121), "sm_121a");
  EXPECT_EQ(cuda::target_of(130), "compute_121");
  EXPECT_EQ(cuda::targets_of(86), (std::vector<std::string>{"sm_86", "sm_80"}));
  EXPECT_EQ(cuda::targets_of(90), (std::vector<std::string>{"sm_90a"}));
}

TEST(CudaBackend, IsListedWithoutADriverAndSaysWhatIsMissing) {
  const runtime::Backend* backend = runtime::find_backend(DeviceType::kCuda);
  ASSERT_NE(backend, nullptr);
  if (backend->num_devices() > 0) GTEST_SKIP() << "this machine has " << cuda::device(0).name;
  float x[8] = {}, weight[8] = {};
  TensorView t = view_of(x, {1, 8}), w = view_of(weight, {8});
  t.device_type = w.device_type = DeviceType::kCuda;
  try {
    rmsnorm({.input = t, .weight = w, .out = t});
    FAIL() << "ran without a GPU";
  } catch (const Error& e) { EXPECT_EQ(e.message.rfind("cuda: ", 0), 0u) << e.message; }
}

}  // namespace
}  // namespace fulmen::testing
