// SPDX-License-Identifier: Apache-2.0
// Our declarations of the CUDA driver against its own header, where this machine has one.
#include <gtest/gtest.h>

#include "src/cuda/driver.h"

#if __has_include(<cuda.h>)
#include <cuda.h>

#include <cstddef>

namespace fulmen::cuda::driver {
static_assert(sizeof(LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
static_assert(sizeof(LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(LaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(LaunchConfig, num_attributes) == offsetof(CUlaunchConfig, numAttrs));
static_assert(sizeof(Pointer) == sizeof(CUdeviceptr));
static_assert(kAttributeCluster == CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
static_assert(kAttributeDependentLaunch == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
static_assert(kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT &&
              kClockKhz == CU_DEVICE_ATTRIBUTE_CLOCK_RATE);
static_assert(kL2Bytes == CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
static_assert(kMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR &&
              kMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
static_assert(kMaxSharedOptin == CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
static_assert(kFunctionMaxShared == CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
static_assert(kFunctionNonPortableCluster == CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED);
static_assert(kNotReady == CUDA_ERROR_NOT_READY && kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY);
static_assert(kCaptureGlobal == CU_STREAM_CAPTURE_MODE_GLOBAL && kCaptureRelaxed == CU_STREAM_CAPTURE_MODE_RELAXED);

TEST(CudaAbi, AgreesWithTheHeader) { SUCCEED(); }  // the assertions above are the test
}  // namespace fulmen::cuda::driver
#else
TEST(CudaAbi, AgreesWithTheHeader) { GTEST_SKIP() << "no cuda.h on this machine"; }
#endif
