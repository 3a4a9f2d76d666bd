// SPDX-License-Identifier: Apache-2.0
// Programmatic dependent launch (sm_90 and up): a kernel may start while its predecessor still runs. Every kernel of
// Fulmen calls wait_for_predecessor before its first read of global memory (attention that runs beside its predecessor
// does at its end; a plan that an earlier run made is read before); without the launch attribute both are free.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

namespace fulmen::cuda {

__device__ __forceinline__ void wait_for_predecessor() {
  if constexpr (kArch >= 90) asm volatile("griddepcontrol.wait;" ::: "memory");
}
// The successor may be scheduled once every CTA has said so or has ended; it still waits for our memory.
__device__ __forceinline__ void allow_successor() {
  if constexpr (kArch >= 90) asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

}  // namespace fulmen::cuda
