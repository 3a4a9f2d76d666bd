// SPDX-License-Identifier: Apache-2.0
// Also checks what the hardware would trap on: alignment.
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

#include <cstdio>
#include <cstdlib>

namespace fulmen::cuda {

template <int32_t N>
struct Bits {
  uint32_t word[N / 4];
};
template <>
struct Bits<2> {
  uint16_t half;
};
template <>
struct Bits<1> {
  uint8_t byte;
};

template <int32_t N>
void check_aligned(const void* p) {
  if (reinterpret_cast<uint64_t>(p) % (N > 16 ? 16 : N) == 0) return;
  std::fprintf(stderr, "misaligned access of %d bytes at %p\n", N, p);
  std::abort();
}
template <int32_t N>
Bits<N> load_stream(const void* p) {
  check_aligned<N>(p);
  Bits<N> b;
  std::memcpy(&b, p, N);
  return b;
}
template <int32_t N>
Bits<N> load_shared_by_rows(const void* p) {
  return load_stream<N>(p);
}
inline void prefetch_to_l2(const void*) {}
inline Bits<16> load_coherent_16(const void* p) { return load_stream<16>(p); }
inline Bits<8> load_coherent_8(const void* p) { return load_stream<8>(p); }
inline int32_t load_coherent_4(const void* p) { return bit_cast<int32_t>(load_stream<4>(p)); }
template <int32_t N>
void store_stream(void* p, const Bits<N>& b) {
  check_aligned<N>(p);
  std::memcpy(p, &b, N);
}

}  // namespace fulmen::cuda
