// SPDX-License-Identifier: Apache-2.0
// Addresses are offsets into the CTA's dynamic shared memory.
#pragma once
#include <fulmen/cuda/ptx/memory.cuh>

namespace fulmen::cuda {

inline char* dynamic_shared() {
  return static_cast<char*>(simt::runtime().dynamic_shared(simt::runtime().self()->cluster_rank));
}
inline uint32_t shared_address(const void* p) { return uint32_t(static_cast<const char*>(p) - dynamic_shared()); }

template <int32_t N>
Bits<N> load_shared(uint32_t address) {
  Bits<N> b;
  if (address % N != 0) std::fprintf(stderr, "misaligned shared address %u\n", address), std::abort();
  std::memcpy(&b, dynamic_shared() + address, N);
  return b;
}
template <int32_t N>
void store_shared(uint32_t address, const Bits<N>& b) {
  if (address % N != 0) std::fprintf(stderr, "misaligned shared address %u\n", address), std::abort();
  std::memcpy(dynamic_shared() + address, &b, N);
}

}  // namespace fulmen::cuda
