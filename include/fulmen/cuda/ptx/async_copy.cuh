// SPDX-License-Identifier: Apache-2.0
// Copies from global to shared memory that a thread does not wait for: issued in groups, awaited in order. Before sm_80
// a copy goes through registers and is done when it returns.
#pragma once
#include <fulmen/cuda/ptx/shared.cuh>

namespace fulmen::cuda {

// 16 bytes, or zeros where `valid` is false; then nothing is read, but `from` must be some address of the tensor.
__device__ __forceinline__ void copy_async_16(uint32_t to, const void* from, bool valid) {
  if constexpr (kArch >= 80) {
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(valid ? 16 : 0)
                 : "memory");
  } else {
    Bits<16> bits{};
    if (valid) bits = load_stream<16>(from);
    store_shared<16>(to, bits);
  }
}
__device__ __forceinline__ void commit_copies() {
  if constexpr (kArch >= 80) asm volatile("cp.async.commit_group;" ::: "memory");
}
// Waits until all but this thread's last kPending groups have arrived; others' need a barrier after it.
template <int32_t kPending>
__device__ __forceinline__ void wait_copies() {
  if constexpr (kArch >= 80) asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace fulmen::cuda
