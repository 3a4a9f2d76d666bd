// SPDX-License-Identifier: Apache-2.0
// The fibers of all CTAs of a cluster run together, so another CTA's shared memory is a pointer away. Kernels that run
// in clusters keep all their shared memory in dynamic_shared(): __shared__ variables are static here.
#pragma once
#include <fulmen/cuda/ptx/shared.cuh>

namespace fulmen::cuda {

inline uint32_t cluster_rank() { return simt::runtime().self()->cluster_rank; }
inline uint32_t cluster_size() { return simt::runtime().self()->cluster_size; }
inline void sync_cluster() { simt::runtime().sync_cluster(); }
inline void arrive_cluster() {}
inline void arrive_cluster_running() {}
inline void wait_cluster() { sync_cluster(); }

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
inline void start_receipt(uint64_t*) {}
inline void expect_receipt(uint64_t*, uint32_t) {}
inline void send_remote_2(uint32_t* p, uint32_t rank, const uint32_t (&x)[2], uint64_t*) { store_remote_2(p, rank, x); }
inline void send_remote_4(uint32_t* p, uint32_t rank, const uint32_t (&x)[4], uint64_t*) { store_remote_4(p, rank, x); }
inline void wait_receipt(uint64_t*, uint32_t) { sync_cluster(); }
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
