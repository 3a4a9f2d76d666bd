// SPDX-License-Identifier: Apache-2.0
// packbits: one load per thread, one or two bytes of bits. Launched by src/cuda/bits.cc.
#pragma once
#include <fulmen/cuda/packbits.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/bits.cuh>

namespace fulmen::cuda::packbits {

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  const int64_t first = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * bits_per_thread(K);
  if (first >= p.num_bits) return;
  wait_for_predecessor();
  allow_successor();
  uint8_t* out = p.out + first / 8;
  if (K.vec == 1 || first + bits_per_thread(K) > p.num_bits) {
    for (int64_t i = first; i < p.num_bits && i < first + bits_per_thread(K); i += 8)
      *out++ = uint8_t(pack_bytes<K.little>(p.x + i, p.num_bits - i));
  } else if constexpr (K.vec == 8) {
    const Bits<8> b = load_stream<8>(p.x + first);
    *out = uint8_t(pack_words<K.little>(b.word[0], b.word[1]));
  } else if constexpr (K.vec == 16) {
    const Bits<16> b = load_stream<16>(p.x + first);
    out[0] = uint8_t(pack_words<K.little>(b.word[0], b.word[1]));
    out[1] = uint8_t(pack_words<K.little>(b.word[2], b.word[3]));
  }
}

}  // namespace fulmen::cuda::packbits
