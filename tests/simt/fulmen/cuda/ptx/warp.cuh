// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/ptx/arch.cuh>

#include <algorithm>

namespace fulmen::cuda {

inline int32_t warp_lane() { return int32_t(threadIdx.x) % 32; }
inline int32_t fresh_thread() { return int32_t(threadIdx.x); }
template <class T>
T forget(T x) {
  return x;
}
inline int32_t warp_index() { return int32_t(threadIdx.x) / 32; }
inline void sync_warp() { simt::runtime().sync_warp(); }
inline void sync_cta() { simt::runtime().sync_cta(); }

template <class T>
T shuffle_from(T x, int32_t lane) {
  static_assert(sizeof(T) <= 16);
  char* slots = static_cast<char*>(simt::runtime().warp_slots());
  std::memcpy(slots + 16 * warp_lane(), &x, sizeof x);
  sync_warp();
  std::memcpy(&x, slots + 16 * lane, sizeof x);
  sync_warp();
  return x;
}
template <class T>
T shuffle_xor(T x, int32_t mask) {
  return shuffle_from(x, warp_lane() ^ mask);
}
template <class T>
T shuffle_up(T x, int32_t distance) {
  return shuffle_from(x, warp_lane() < distance ? warp_lane() : warp_lane() - distance);
}
inline uint32_t ballot(bool predicate) {
  uint32_t bits = predicate ? 1u << warp_lane() : 0;
  for (int32_t mask = 1; mask < 32; mask *= 2) bits |= shuffle_xor(bits, mask);
  return bits;
}
inline int32_t num_bits(uint32_t bits) { return __builtin_popcount(bits); }
inline int32_t first_bit(uint32_t bits) { return __builtin_ctz(bits); }
inline int32_t last_bit(uint32_t bits) { return 31 - __builtin_clz(bits); }
inline uint32_t add_warp(uint32_t x) {
  for (int32_t mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}
inline uint64_t add_warp(uint64_t x) {
  for (int32_t mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  return x;
}
inline uint32_t max_warp(uint32_t x) {
  for (int32_t mask = 16; mask > 0; mask /= 2) x = std::max(x, shuffle_xor(x, mask));
  return x;
}

// Fibers only switch at the calls above, so that plain code is atomic.
template <class T>
void atomic_add(T* p, T x) {
  *p += x;
}
inline void fence_device() {}
inline uint32_t fetch_add(uint32_t* p, uint32_t x) { return *p += x, *p - x; }
inline uint32_t count_arrival(uint32_t* p, uint32_t last) {
  const uint32_t before = *p;
  *p = before >= last ? 0 : before + 1;
  return before;
}
inline uint32_t atomic_add_local(uint32_t* p, uint32_t x) {
  const uint32_t before = *p;
  *p += x;
  return before;
}
inline void atomic_or(uint32_t* p, uint32_t x) { *p |= x; }
inline uint32_t atomic_max(uint32_t* p, uint32_t x) {
  const uint32_t before = *p;
  if (x > before) *p = x;
  return before;
}

}  // namespace fulmen::cuda
