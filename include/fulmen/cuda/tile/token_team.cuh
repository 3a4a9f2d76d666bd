// SPDX-License-Identifier: Apache-2.0
// What the CTAs of a row's team and the threads of a CTA do together. See token_row.h for who owns what.
#pragma once
#include <fulmen/cuda/token_row.h>
#include <fulmen/cuda/ptx/cluster.cuh>
#include <fulmen/cuda/ptx/warp.cuh>

namespace fulmen::cuda {

struct TokenControl {
  uint64_t slots[2][kMaxTeam];              // one word from each CTA of the team, in turn
  uint64_t entry;                           // an answer of one thread to all
  int64_t row, input_row;                   // of the output; of the input
  double u;                                 // the row's random number
  uint64_t total;                           // what the row, or what is kept of it, weighs
  uint32_t list_count, local_count;         // tokens pushed to the list
  uint32_t first_upper, first_lower;        // complements of bins, for atomic maxima
  uint32_t last_bin, bin, place, key, end;  // answers of one thread to all
};

// A value above every other in the order of tokens has the larger key. -0 and 0 share one; NaN is above all.
__device__ __forceinline__ uint32_t key_of(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x + 0.0f);
  const uint32_t key = bits ^ ((bits >> 31) != 0 ? 0xffffffffu : 0x80000000u);
  return x != x ? 0xffffffffu : key;
}
__device__ __forceinline__ float float_of(uint32_t key) {
  return bit_cast<float>(key ^ ((key >> 31) != 0 ? 0x80000000u : 0xffffffffu));
}
inline constexpr uint32_t kNanKey = 0xffffffffu, kInfiniteKey = 0xff800000u, kLeastKey = 0x007fffffu;  // of -inf

// What the lanes before this one hold; total: what the warp holds.
template <class T>
__device__ __forceinline__ T scan_warp(T x, T& total) {
  T sum = x;
#pragma unroll 1
  for (int32_t d = 1; d < 32; d *= 2) {
    const T other = shuffle_up(sum, d);
    if (warp_lane() >= d) sum += other;
  }
  total = shuffle_from(sum, 31);
  const T before = shuffle_up(sum, 1);
  return warp_lane() == 0 ? T(0) : before;
}

template <int32_t Threads, bool kCluster>
struct TokenTeam {
  static constexpr int32_t kThreads = Threads, kWarps = Threads / 32;
  static constexpr bool kClusters = kCluster;
  // Of the two halves of the scratch. They know of this object's uses alone: between the last one of another object and
  // the first one here there must be a barrier, of the CTA for sums of the CTA, of the team for those of the team.
  int32_t turn = 0, team_turn = 0;

  // Asked each time, as registers are short.
  __device__ __forceinline__ static uint32_t rank() {
    if constexpr (kCluster) return cluster_rank();
    return 0;
  }
  __device__ __forceinline__ static uint32_t size() {
    if constexpr (kCluster) return cluster_size();
    return 1;
  }
  __device__ __forceinline__ void sync() const {
    if constexpr (kCluster)
      sync_cluster();
    else
      sync_cta();
  }
  // The first barrier of the team, with the row's copies between its halves; also one of the CTA.
  __device__ __forceinline__ void arrive() const {
    if constexpr (kCluster) arrive_cluster();
  }
  __device__ __forceinline__ void wait() const {
    if constexpr (kCluster)
      wait_cluster();
    else
      sync_cta();
  }
  template <class T>
  __device__ __forceinline__ static T* shared(int32_t offset) {
    return reinterpret_cast<T*>(dynamic_shared() + offset);
  }
  __device__ __forceinline__ static TokenControl& control() { return *shared<TokenControl>(TokenLayout::kControl); }

  // *p = x in every CTA of the team; one thread calls.
  template <class T>
  __device__ __forceinline__ void tell_all(T* p, T x) const {
    if constexpr (kCluster) {
#pragma unroll 1
      for (uint32_t r = 0; r < size(); ++r) store_remote(p, r, x);
    } else {
      *p = x;
    }
  }
  // The same from a whole warp, whose lanes all hold x.
  template <class T>
  __device__ __forceinline__ void tell_all_by_warp(T* p, T x) const {
    if constexpr (kCluster) {
      if (uint32_t(warp_lane()) < size()) store_remote(p, uint32_t(warp_lane()), x);
    } else {
      if (warp_lane() == 0) *p = x;
    }
  }

  // What the threads before this one hold; total: what all hold. Every thread of the CTA calls.
  template <class T>
  __device__ __forceinline__ T scan(T x, T& total) {
    T all;
    const T before = scan_warp(x, all);
    T* slots = shared<T>(TokenLayout::kScan + turn * 256);
    turn ^= 1;
    if (warp_lane() == 0) slots[warp_index()] = all;
    sync_cta();
    const T earlier = scan_warp(warp_lane() < kWarps ? slots[warp_lane()] : T(0), total);
    return shuffle_from(earlier, warp_index()) + before;
  }
  // Over the CTA; every thread calls.
  template <class T>
  __device__ __forceinline__ T sum(T x) {
    T* slots = shared<T>(TokenLayout::kScan + turn * 256);
    turn ^= 1;
    x = add_warp(x);
    if (warp_lane() == 0) slots[warp_index()] = x;
    sync_cta();
    return add_warp(warp_lane() < kWarps ? slots[warp_lane()] : T(0));
  }
  __device__ __forceinline__ uint32_t max(uint32_t x) {
    uint32_t* slots = shared<uint32_t>(TokenLayout::kScan + turn * 256);
    turn ^= 1;
    x = max_warp(x);
    if (warp_lane() == 0) slots[warp_index()] = x;
    sync_cta();
    return max_warp(warp_lane() < kWarps ? slots[warp_lane()] : 0);
  }
  // The largest of each over the CTA; meanwhile: work to be done before the barrier in it.
  template <class F>
  __device__ __forceinline__ void max_of_both(uint32_t& x, uint32_t& y, const F& meanwhile) {
    uint32_t* slots = shared<uint32_t>(TokenLayout::kScan + turn * 256);
    turn ^= 1;
    x = max_warp(x), y = max_warp(y);
    if (warp_lane() == 0) slots[warp_index()] = x, slots[32 + warp_index()] = y;
    meanwhile();
    sync_cta();
    x = max_warp(warp_lane() < kWarps ? slots[warp_lane()] : 0);
    y = max_warp(warp_lane() < kWarps ? slots[32 + warp_lane()] : 0);
  }
  // The sum over the team of what each CTA's threads hold. One team barrier.
  __device__ __forceinline__ uint64_t team_sum(uint64_t x) {
    const uint64_t mine = sum(x);
    if constexpr (!kCluster) return mine;
    uint64_t* slots = control().slots[team_turn];
    team_turn ^= 1;
    if (warp_index() == 0) tell_all_by_warp(slots + rank(), mine);
    sync();
    return add_warp(uint32_t(warp_lane()) < size() ? slots[warp_lane()] : 0);
  }
  // The largest of the team. One team barrier.
  __device__ __forceinline__ uint32_t team_max(uint32_t x) {
    const uint32_t mine = max(x);
    if constexpr (!kCluster) return mine;
    uint64_t* slots = control().slots[team_turn];
    team_turn ^= 1;
    if (warp_index() == 0) tell_all_by_warp(slots + rank(), uint64_t(mine));
    sync();
    return max_warp(uint32_t(warp_lane()) < size() ? uint32_t(slots[warp_lane()]) : 0);
  }
};

}  // namespace fulmen::cuda
