// SPDX-License-Identifier: Apache-2.0
// A complete third-party backend: the "toy" device is host memory that only toy kernels may touch. It serves one op,
// and that one for one dtype; everything else is refused with a reason. Copy this folder to begin a port.
#pragma once
#include <fulmen/runtime/backend.h>

namespace toy {

// Device types of other people's devices start at 100; CPU, CUDA and the like are DLPack's small numbers.
inline constexpr auto kToyDevice = fulmen::DeviceType(100);

void register_backend();  // once per process

void* allocate(size_t num_bytes);
void release(void* memory);

}  // namespace toy
