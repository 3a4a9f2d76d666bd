// SPDX-License-Identifier: Apache-2.0
// The CUDA backend's operators against the references, on device 0. With FULMEN_TEST_DEVICE=simt the same runs on the
// emulated device of tests/simt, without a GPU.
#include "tests/support/gpu_case.h"

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  fulmen::testing::choose_device();
  return RUN_ALL_TESTS();
}
