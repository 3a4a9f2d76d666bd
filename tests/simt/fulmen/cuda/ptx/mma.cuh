// SPDX-License-Identifier: Apache-2.0
// The warp's products: lanes show each other their operands in the warp's slots.
#pragma once
#include <fulmen/cuda/types.h>
#include <fulmen/cuda/ptx/shared.cuh>
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda {

template <class T>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Slot {
    uint32_t a[4], b[2], unused[2];
  };
  Slot* slots = static_cast<Slot*>(simt::runtime().warp_slots());
  slots[warp_lane()] = {{a[0], a[1], a[2], a[3]}, {b0, b1}, {}};
  sync_warp();
  const auto half = [](uint32_t word, int32_t i) { return double(to_f32(T{uint16_t(word >> (i * 16))})); };
  const int32_t g = warp_lane() / 4, t = warp_lane() % 4;
  for (int32_t i = 0; i < 4; ++i) {
    const int32_t column = 2 * t + i % 2;
    double sum = 0;
    for (int32_t k = 0; k < 16; ++k) {
      const uint32_t left = slots[g * 4 + k % 8 / 2].a[k / 8 * 2 + i / 2],
                     right = slots[column * 4 + k % 8 / 2].b[k / 8];
      sum += half(left, k % 2) * half(right, k % 2);
    }
    c[i] = float(double(c[i]) + sum);
  }
  sync_warp();
}

inline void exchange_matrices(uint32_t (&r)[4], uint32_t address, bool transposed) {
  uint32_t* slots = static_cast<uint32_t*>(simt::runtime().warp_slots());
  slots[warp_lane()] = address;
  sync_warp();
  const int32_t g = warp_lane() / 4, t = warp_lane() % 4;
  const auto element = [&](int32_t i, int32_t row, int32_t column) {
    const uint32_t at = slots[i * 8 + row];
    if (at % 16 != 0) std::fprintf(stderr, "misaligned matrix row at %u\n", at), std::abort();
    uint16_t x;
    std::memcpy(&x, dynamic_shared() + at + column * 2, 2);
    return uint32_t(x);
  };
  for (int32_t i = 0; i < 4; ++i)
    r[i] = transposed ? element(i, 2 * t, g) | element(i, 2 * t + 1, g) << 16
                      : element(i, g, 2 * t) | element(i, g, 2 * t + 1) << 16;
  sync_warp();
}
inline void load_matrices(uint32_t (&r)[4], uint32_t address) { exchange_matrices(r, address, false); }
inline void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) { exchange_matrices(r, address, true); }

}  // namespace fulmen::cuda
