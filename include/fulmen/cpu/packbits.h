// SPDX-License-Identifier: Apache-2.0
// CPU packbits: kBytes booleans to a mask at a time. Called by src/cpu/levels/packbits.cc and segment_packbits.cc.
#pragma once
#include <fulmen/core/executor.h>
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/packbits.h>

FULMEN_CPU_BEGIN

// Turns the bits of every byte around.
inline uint64_t reverse_in_bytes(uint64_t x) {
  x = (x >> 1 & 0x5555555555555555u) | (x & 0x5555555555555555u) << 1;
  x = (x >> 2 & 0x3333333333333333u) | (x & 0x3333333333333333u) << 2;
  return (x >> 4 & 0x0f0f0f0f0f0f0f0fu) | (x & 0x0f0f0f0f0f0f0f0fu) << 4;
}

// out[0 .. ceil(num_bits/8)) from x[0 .. num_bits)
inline void pack_row(const uint8_t* x, int64_t num_bits, uint8_t* out, BitOrder order) {
  const auto emit = [&](int64_t first, const uint8_t* bytes, int64_t num_bytes) {
    const uint64_t little = nonzero_bits(bytes);
    const uint64_t bits = order == BitOrder::kLittle ? little : reverse_in_bytes(little);
    for (int64_t k = 0; k < num_bytes; ++k) out[first / 8 + k] = uint8_t(bits >> (8 * k));
  };
  int64_t i = 0;
  for (; i + kBytes <= num_bits; i += kBytes) emit(i, x + i, kBytes / 8);
  if (i == num_bits) return;
  uint8_t tail[kBytes] = {};
  for (int64_t k = i; k < num_bits; ++k) tail[k - i] = x[k];
  emit(i, tail, (num_bits - i + 7) / 8);
}

inline void packbits(const PackBitsArgs& a, const PackBitsDims& d, const Executor& executor) {
  const uint8_t* x = a.x.as<const uint8_t>();
  parallel_chunks(executor, d.num_bytes, 4096, [&](int64_t begin, int64_t end, int32_t) {
    const int64_t last = end * 8 < d.num_bits ? end * 8 : d.num_bits;
    pack_row(x + begin * 8, last - begin * 8, a.out.as<uint8_t>() + begin, a.bitorder);
  });
}

FULMEN_CPU_END
