// SPDX-License-Identifier: Apache-2.0
// The fibers of all CTAs of a cluster run together, so another CTA's shared memory is a pointer away. Kernels that run
// in clusters keep all their shared memory in dynamic_shared(): __shared__ variables are static here.
#pragma once
#include <fulmen/cuda/ptx/shared.cuh>

namespace fulmen::cuda {

inline uint32_t cluster_rank() { return simt::runtime().self()->cluster_rank; }
inline uint32_t cluster_size() { return simt::runtime().self()->cluster_size; }
inline void arrive_cluster() { simt::runtime().arrive_cluster(); }
inline void arrive_cluster_running() { arrive_cluster(); }
inline void wait_cluster() { simt::runtime().wait_cluster(); }
inline void sync_cluster() { arrive_cluster(), wait_cluster(); }

template <class T>
T* remote(T* p, uint32_t rank) {
  const auto offset = reinterpret_cast<const char*>(p) - dynamic_shared();
  return reinterpret_cast<T*>(static_cast<char*>(simt::runtime().dynamic_shared(rank)) + offset);
}
template <class T>
void store_remote(T* p, uint32_t rank, T x) {
  *remote(p, rank) = x;
}
inline uint32_t load_remote(const uint32_t* p, uint32_t rank) { return *remote(const_cast<uint32_t*>(p), rank); }
inline void store_remote_2(uint32_t* p, uint32_t rank, const uint32_t (&x)[2]) {
  std::memcpy(remote(p, rank), x, sizeof x);
}
inline void store_remote_4(uint32_t* p, uint32_t rank, const uint32_t (&x)[4]) {
  std::memcpy(remote(p, rank), x, sizeof x);
}
// What an mbarrier does: a round ends when one thread has arrived and as many bytes as it expects.
struct Receipt {
  int32_t bytes;  // expected and not here
  uint16_t arrivals, rounds;
  void end_round() {
    if (arrivals == 0 && bytes == 0) arrivals = 1, ++rounds;
  }
};
inline Receipt& receipt(uint64_t* counter, uint32_t rank) { return *reinterpret_cast<Receipt*>(remote(counter, rank)); }
inline void start_receipt(uint64_t* counter) { receipt(counter, cluster_rank()) = {0, 1, 0}; }
inline void expect_receipt(uint64_t* counter, uint32_t num_bytes) {
  Receipt& r = receipt(counter, cluster_rank());
  r.bytes += int32_t(num_bytes), --r.arrivals, r.end_round();
}
template <size_t N>
void send_remote(uint32_t* p, uint32_t rank, const uint32_t (&x)[N], uint64_t* counter) {
  std::memcpy(remote(p, rank), x, sizeof x);
  Receipt& r = receipt(counter, rank);
  r.bytes -= int32_t(sizeof x), r.end_round();
}
inline void send_remote_2(uint32_t* p, uint32_t rank, const uint32_t (&x)[2], uint64_t* c) {
  send_remote(p, rank, x, c);
}
inline void send_remote_4(uint32_t* p, uint32_t rank, const uint32_t (&x)[4], uint64_t* c) {
  send_remote(p, rank, x, c);
}
inline void wait_receipt(uint64_t* counter, uint32_t round) {
  simt::runtime().wait_until(
      [](const void* r, uint32_t parity) { return static_cast<const Receipt*>(r)->rounds % 2 != parity; },
      &receipt(counter, cluster_rank()), round % 2);
}
inline void load_remote_4(const uint32_t* p, uint32_t rank, uint32_t (&x)[4]) {
  std::memcpy(x, remote(const_cast<uint32_t*>(p), rank), sizeof x);
}
inline uint32_t atomic_add_remote(uint32_t* p, uint32_t rank, uint32_t x) {
  uint32_t* there = remote(p, rank);
  const uint32_t before = *there;
  *there += x;
  return before;
}

}  // namespace fulmen::cuda
