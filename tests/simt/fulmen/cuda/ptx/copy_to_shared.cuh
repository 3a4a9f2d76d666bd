// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/ptx/memory.cuh>

namespace fulmen::cuda {

template <int32_t N>
void copy_to_shared(void* shared, const void* global) {
  check_aligned<N>(shared), check_aligned<N>(global);
  std::memcpy(shared, global, N);
}
inline void wait_for_copies() {}

}  // namespace fulmen::cuda
