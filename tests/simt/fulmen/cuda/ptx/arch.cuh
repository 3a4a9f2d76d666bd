// SPDX-License-Identifier: Apache-2.0
// Stands in for include/fulmen/cuda/ptx/arch.cuh when a kernel is compiled for the host: CUDA in plain C++, each
// thread a fiber of tests/simt/simt.cc. The folder's other headers stand in for their namesakes in the same way.
#pragma once
#include <fulmen/core/portable.h>

#include <cmath>
#include <cstring>

#define __device__
#define __host__
#define __global__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define __forceinline__ inline
#define __noinline__

namespace fulmen::simt {

struct Index {
  uint32_t x = 0, y = 0, z = 0;
};
struct Thread {
  Index thread, block, grid, block_size;
  uint32_t cluster_rank = 0, cluster_size = 1;
};

// What a fiber asks of the scheduler, filled in when the kernel is loaded.
struct Runtime {
  const Thread* (*self)();
  void (*sync_warp)();
  void (*sync_cta)();
  void (*arrive_cluster)();
  void (*wait_cluster)();
  void (*wait_until)(bool (*ready)(const void* what, uint32_t x), const void* what, uint32_t x);
  void* (*warp_slots)();                   // [32][32] bytes, shared by the warp
  void* (*dynamic_shared)(uint32_t rank);  // of a CTA of the cluster
  bool (*copies_early)();
};
extern "C" {
__attribute__((visibility("default"), weak)) const Runtime* fulmen_simt_runtime;
}
inline const Runtime& runtime() { return *fulmen_simt_runtime; }

}  // namespace fulmen::simt

#define threadIdx (fulmen::simt::runtime().self()->thread)
#define blockIdx (fulmen::simt::runtime().self()->block)
#define gridDim (fulmen::simt::runtime().self()->grid)
#define blockDim (fulmen::simt::runtime().self()->block_size)

namespace fulmen::cuda {
inline constexpr int32_t kArch = 75;
inline constexpr float kInfinity = bit_cast<float>(0x7f800000u);
}  // namespace fulmen::cuda
