// SPDX-License-Identifier: Apache-2.0
// Booleans, a byte each, to bits.
#pragma once
#include <fulmen/cuda/ptx/memory.cuh>

namespace fulmen::cuda {

// Four bytes of a word to four bits, a 1 for each that is not 0: the first to the lowest bit (little) or the highest.
template <bool kLittle>
__device__ __forceinline__ uint32_t pack_word(uint32_t bytes) {
  const uint32_t ones = (((bytes & 0x7f7f7f7fu) + 0x7f7f7f7fu) | bytes) >> 7 & 0x01010101u;
  return ones * (kLittle ? 0x01020408u : 0x08040201u) >> 24 & 15;  // the product brings them together, without a carry
}

// Eight bytes, the first word being the first four.
template <bool kLittle>
__device__ __forceinline__ uint32_t pack_words(uint32_t first, uint32_t second) {
  const uint32_t a = pack_word<kLittle>(first), b = pack_word<kLittle>(second);
  return kLittle ? a | b << 4 : a << 4 | b;
}

// Up to eight bytes anywhere.
template <bool kLittle>
__device__ __forceinline__ uint32_t pack_bytes(const uint8_t* x, int64_t count) {
  uint32_t word[2] = {0, 0};
  for (int32_t i = 0; i < 8 && i < count; ++i) word[i / 4] |= uint32_t(x[i] != 0) << (i % 4 * 8);
  return pack_words<kLittle>(word[0], word[1]);
}

}  // namespace fulmen::cuda
