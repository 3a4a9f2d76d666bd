// SPDX-License-Identifier: Apache-2.0
// Philox 4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as
// 1, 2, 3" (2011): ten rounds of two 32 x 32 → 64 bit products under a key that grows by the golden ratio and √3 - 1.
// 128 random bits for a key of 64 bits (the seed) and a counter of 128 (here offset and subsequence).
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen {

struct PhiloxBlock {
  uint32_t words[4];
};

FULMEN_FN constexpr PhiloxBlock philox(uint64_t seed, uint64_t offset, uint64_t subsequence) {
  constexpr uint32_t kMultiplier0 = 0xd2511f53u, kMultiplier1 = 0xcd9e8d57u;
  constexpr uint32_t kGolden = 0x9e3779b9u, kSqrt3 = 0xbb67ae85u;
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  uint32_t c0 = uint32_t(offset), c1 = uint32_t(offset >> 32);
  uint32_t c2 = uint32_t(subsequence), c3 = uint32_t(subsequence >> 32);
  for (int32_t round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t(kMultiplier0) * c0, product1 = uint64_t(kMultiplier1) * c2;
    c0 = uint32_t(product1 >> 32) ^ c1 ^ key0;
    c1 = uint32_t(product1);
    c2 = uint32_t(product0 >> 32) ^ c3 ^ key1;
    c3 = uint32_t(product0);
    key0 += kGolden;
    key1 += kSqrt3;
  }
  return {{c0, c1, c2, c3}};
}

// 53 bits in [0, 1) from the first (half 0) or the last (half 1) two words of a block.
FULMEN_FN constexpr double uniform(PhiloxBlock block, int32_t half) {
  const uint64_t bits = uint64_t(block.words[2 * half + 1]) << 32 | block.words[2 * half];
  return double(bits >> 11) * 0x1p-53;
}

}  // namespace fulmen
