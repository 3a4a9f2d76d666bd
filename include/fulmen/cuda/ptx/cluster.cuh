// SPDX-License-Identifier: Apache-2.0
// CTAs of a cluster (sm_90 and up): who they are, their barrier, and each other's dynamic shared memory. Elsewhere a
// cluster is one CTA.
#pragma once
#include <fulmen/cuda/ptx/shared.cuh>

namespace fulmen::cuda {

// Volatile: read again where it is asked again, as kernels that need this are short of registers.
__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank = 0;
  if constexpr (kArch >= 90) asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
__device__ __forceinline__ uint32_t cluster_size() {
  uint32_t size = 1;
  if constexpr (kArch >= 90) asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(size));
  return size;
}

// All threads of all CTAs of the cluster call; orders their shared and global memory.
__device__ __forceinline__ void sync_cluster() {
  if constexpr (kArch >= 90) {
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  } else {
    __syncthreads();
  }
}

// The same in two halves, with work between them.
__device__ __forceinline__ void arrive_cluster() {
  if constexpr (kArch >= 90) asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
}
// Says that this CTA runs, and nothing about memory.
__device__ __forceinline__ void arrive_cluster_running() {
  if constexpr (kArch >= 90) asm volatile("barrier.cluster.arrive.relaxed.aligned;");
}
__device__ __forceinline__ void wait_cluster() {
  if constexpr (kArch >= 90)
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
  else
    __syncthreads();
}

// p points into dynamic_shared(); what is accessed is its counterpart in the CTA of that rank.
__device__ __forceinline__ uint32_t remote_address(const void* p, uint32_t rank) {
  uint32_t address = 0;
  if constexpr (kArch >= 90)
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(uint32_t(__cvta_generic_to_shared(p))), "r"(rank));
  return address;
}
__device__ __forceinline__ void store_remote(uint32_t* p, uint32_t rank, uint32_t x) {
  if constexpr (kArch >= 90)
    asm volatile("st.shared::cluster.u32 [%0], %1;" ::"r"(remote_address(p, rank)), "r"(x) : "memory");
  else
    *p = x;
}
__device__ __forceinline__ void store_remote(uint64_t* p, uint32_t rank, uint64_t x) {
  if constexpr (kArch >= 90)
    asm volatile("st.shared::cluster.u64 [%0], %1;" ::"r"(remote_address(p, rank)), "l"(x) : "memory");
  else
    *p = x;
}
__device__ __forceinline__ uint32_t load_remote(const uint32_t* p, uint32_t rank) {
  uint32_t x;
  if constexpr (kArch >= 90)
    asm volatile("ld.shared::cluster.u32 %0, [%1];" : "=r"(x) : "r"(remote_address(p, rank)) : "memory");
  else
    x = *p;
  return x;
}
__device__ __forceinline__ void store_remote_2(uint32_t* p, uint32_t rank, const uint32_t (&x)[2]) {
  if constexpr (kArch >= 90)
    asm volatile("st.shared::cluster.v2.u32 [%0], {%1, %2};" ::"r"(remote_address(p, rank)), "r"(x[0]), "r"(x[1])
                 : "memory");
  else
    p[0] = x[0], p[1] = x[1];
}
__device__ __forceinline__ void store_remote_4(uint32_t* p, uint32_t rank, const uint32_t (&x)[4]) {
  if constexpr (kArch >= 90)
    asm volatile("st.shared::cluster.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(remote_address(p, rank)), "r"(x[0]),
                 "r"(x[1]), "r"(x[2]), "r"(x[3])
                 : "memory");
  else
    for (int32_t i = 0; i < 4; ++i) p[i] = x[i];
}
// 16 bytes at once: what is far is read in packets.
__device__ __forceinline__ void load_remote_4(const uint32_t* p, uint32_t rank, uint32_t (&x)[4]) {
  if constexpr (kArch >= 90) {
    asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(remote_address(p, rank))
                 : "memory");
  } else {
    for (int32_t i = 0; i < 4; ++i) x[i] = p[i];
  }
}
// Bytes that arrive from other CTAs, counted by 8 bytes of dynamic_shared(): a round ends when as many are there as its
// CTA was told to expect, with nobody's stores to wait for but these. One thread starts and expects.
__device__ __forceinline__ void start_receipt(uint64_t* counter) {
  if constexpr (kArch >= 90) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(uint32_t(__cvta_generic_to_shared(counter)))
                 : "memory");
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
}
__device__ __forceinline__ void expect_receipt(uint64_t* counter, uint32_t num_bytes) {
  if constexpr (kArch >= 90)
    asm volatile(
        "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(uint32_t(__cvta_generic_to_shared(counter))),
        "r"(num_bytes)
        : "memory");
}
__device__ __forceinline__ void send_remote_2(uint32_t* p, uint32_t rank, const uint32_t (&x)[2], uint64_t* counter) {
  if constexpr (kArch >= 90)
    asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%2, %3}, [%1];" ::"r"(
                     remote_address(p, rank)),
                 "r"(remote_address(counter, rank)), "r"(x[0]), "r"(x[1])
                 : "memory");
}
__device__ __forceinline__ void send_remote_4(uint32_t* p, uint32_t rank, const uint32_t (&x)[4], uint64_t* counter) {
  if constexpr (kArch >= 90)
    asm volatile(
        "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%2, %3, %4, %5}, [%1];" ::"r"(
            remote_address(p, rank)),
        "r"(remote_address(counter, rank)), "r"(x[0]), "r"(x[1]), "r"(x[2]), "r"(x[3])
        : "memory");
}
__device__ __forceinline__ void wait_receipt(uint64_t* counter, uint32_t round) {
  uint32_t done = kArch >= 90 ? 0 : 1;
  while (done == 0)
    if constexpr (kArch >= 90)
      asm volatile(
          "{\n.reg .pred p;\nmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, "
          "p;\n}"
          : "=r"(done)
          : "r"(uint32_t(__cvta_generic_to_shared(counter))), "r"(round & 1)
          : "memory");
}
__device__ __forceinline__ uint32_t atomic_add_remote(uint32_t* p, uint32_t rank, uint32_t x) {
  uint32_t before;
  if constexpr (kArch >= 90)
    asm volatile("atom.shared::cluster.add.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "r"(remote_address(p, rank)), "r"(x)
                 : "memory");
  else
    before = atomicAdd(p, x);
  return before;
}

}  // namespace fulmen::cuda
