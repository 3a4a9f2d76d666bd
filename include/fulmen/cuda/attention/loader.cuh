// SPDX-License-Identifier: Apache-2.0
// Brings tiles of keys and values to shared memory: any page size, a copy of 16 bytes at a time, each row's place
// looked up once per tile and group of warps. Page ids are read two tiles before their rows are.
#pragma once
#include <fulmen/cuda/batch_attention.h>
#include <fulmen/cuda/ptx/async_copy.cuh>
#include <fulmen/cuda/ptx/warp.cuh>
#include <fulmen/cuda/tile/swizzle.cuh>

namespace fulmen::cuda::batch_attention {

template <Key K>
struct Group {  // the warps that share a tile
  static constexpr int32_t kThreads = K.warps_q * 32;
  __device__ __forceinline__ static int32_t index(int32_t thread) { return num_groups(K) == 1 ? 0 : thread / kThreads; }
  __device__ __forceinline__ static int32_t thread(int32_t thread) {
    return num_groups(K) == 1 ? thread : thread % kThreads;
  }
  __device__ __forceinline__ static void sync() {
    if constexpr (K.warps_q == 1)
      sync_warp();
    else
      sync_cta();
  }
};

template <Key K, class Variant>
class Loader {
 public:
  static constexpr int32_t kSize = size_of(K.kv), kChunksK = K.d_qk * kSize / 16, kChunksV = K.d_vo * kSize / 16;
  static constexpr int32_t kValues = K.tile_kv * kChunksK * 16;  // where a stage's values begin
  static constexpr SharedLayout kShared = SharedLayout(K);

  // Keys of one request and head, from first_key on; the tiles of this group are tile_kv * num_groups apart.
  __device__ __forceinline__ Loader(const ParamsOf<Variant>& p, const attention::PlanItem& item, int32_t begin,
                                    int32_t end, int32_t thread)
      : p_(p),
        first_(begin + Group<K>::index(thread) * K.tile_kv),
        end_(end),
        places_(reinterpret_cast<Place*>(dynamic_shared() + kShared.places) + Group<K>::index(thread) * 2 * K.tile_kv),
        ring_(shared_address(dynamic_shared() + kShared.stages) +
              uint32_t(Group<K>::index(thread) * K.stages * kShared.stage_bytes)) {
    if (thread != 0) return;
    const int64_t base = p.kv_begin.data == nullptr ? 0 : p.kv_begin[item.request_idx];
    const bool paged = p.page_ids.data != nullptr;
    Control& c = control();
    c.first_id = p.table_stride > 0 ? item.request_idx * p.table_stride : base;
    c.k = p.k + item.kv_head * p.k_head + (paged ? 0 : base * p.k_token);
    c.v = p.v + item.kv_head * p.v_head + (paged ? 0 : base * p.v_token);
  }

  static constexpr int32_t kStep = K.tile_kv * num_groups(K);
  __device__ __forceinline__ int32_t first_key(int32_t tile) const { return first_ + tile * kStep; }
  __device__ __forceinline__ uint32_t stage(int32_t tile) const {
    return ring_ + uint32_t(tile % K.stages * kShared.stage_bytes);
  }

  // Starts the first stages - 1 tiles. All threads of the CTA have constructed theirs.
  __device__ __forceinline__ void start() {
    fetch(0);
#pragma unroll 1
    for (int32_t tile = 0; tile < K.stages - 1; ++tile) {
      place(tile);
      fetch(tile + 1);
      Group<K>::sync();
      issue(tile);
    }
    place(K.stages - 1);
    fetch(K.stages);
  }
  // Waits for a tile, for all warps of the group, and starts the one that takes its predecessor's stage.
  __device__ __forceinline__ void advance(int32_t tile) {
    wait_copies<K.stages - 2>();
    Group<K>::sync();
    issue(tile + K.stages - 1);
    place(tile + K.stages);
    fetch(tile + K.stages + 1);
  }

 private:
  __device__ __forceinline__ static Control& control() { return *reinterpret_cast<Control*>(dynamic_shared()); }
  __device__ __forceinline__ static int32_t this_thread() { return Group<K>::thread(fresh_thread()); }
  // A thread's row of a tile: one row per thread, if there are enough.
  static_assert(K.tile_kv <= Group<K>::kThreads);

  __device__ __forceinline__ void fetch(int32_t tile) {
    const int32_t thread = this_thread(), key = first_key(tile) + thread;
    if (p_.page_ids.data == nullptr || thread >= K.tile_kv || key >= end_) return;
    page_ = p_.page_ids.low(control().first_id + p_.page_size.quotient(key));
  }

  __device__ __forceinline__ void place(int32_t tile) const {
    const int32_t row = this_thread(), key = first_key(tile) + row;
    if (row >= K.tile_kv) return;
    Place at{0, 0};
    if (key < end_) {
      if (p_.page_ids.data == nullptr) {
        at = {key * p_.k_token, key * p_.v_token};
      } else {  // an id that names no page reads the first one: nothing outside the cache is touched
        const int64_t page = page_ >= 0 && page_ < p_.num_pages ? page_ : 0;
        const int32_t slot = p_.page_size.remainder(key);
        at = {page * p_.k_page + slot * p_.k_token, page * p_.v_page + slot * p_.v_token};
      }
    }
    places_[tile % 2 * K.tile_kv + row] = at;
  }

  // A thread copies one chunk of every so many rows. Few registers hold what all its copies share; the rest is added
  // anew for each tile.
  template <int32_t kChunks>
  __device__ __forceinline__ void copy_rows(uint32_t to, const char* from, int64_t Place::*offset, const Place* places,
                                            int32_t num_rows, int32_t num_chunks) const {
    using At = Swizzle<kChunks>;
    constexpr int32_t kThreads = Group<K>::kThreads, kCopies = K.tile_kv * kChunks;
    const int32_t thread = this_thread(), row = thread / kChunks, chunk = thread % kChunks;
    if constexpr (kThreads % kChunks == 0 && kCopies % kThreads == 0) {
      constexpr int32_t kRows = kThreads / kChunks;  // a power of two, so that turns of sums are exclusive ors
      const int32_t turned = chunk ^ At::turn(row);
      from += chunk * 16, to += uint32_t(row * kChunks * 16), places += row, num_rows -= row;
      if (chunk >= num_chunks) num_rows = 0;
#pragma unroll
      for (int32_t i = 0; i < K.tile_kv; i += kRows)
        copy_async_16(to + uint32_t((i * kChunks + (turned ^ At::turn(i))) * 16), from + places[i].*offset,
                      i < num_rows);
    } else {
#pragma unroll
      for (int32_t i = 0; i < kCopies; i += kThreads) {
        const int32_t at = i + thread, r = at / kChunks, c = at % kChunks;
        if (kCopies % kThreads != 0 && at >= kCopies) break;
        copy_async_16(to + uint32_t(At::at(r, c)), from + places[r].*offset + c * 16, r < num_rows && c < num_chunks);
      }
    }
  }

  __device__ __forceinline__ void issue(int32_t tile) const {
    const int32_t num_rows = end_ - first_key(tile);
    if (num_rows > 0) {
      const Place* places = places_ + tile % 2 * K.tile_kv;
      const uint32_t to = stage(tile);
      copy_rows<kChunksK>(to, control().k, &Place::k, places, num_rows, p_.d_qk * kSize / 16);
      copy_rows<kChunksV>(to + uint32_t(kValues), control().v, &Place::v, places, num_rows, p_.d_vo * kSize / 16);
    }
    commit_copies();
  }

  const ParamsOf<Variant>& p_;
  int32_t first_, end_;
  Place* places_;
  uint32_t ring_;
  int32_t page_ = 0;
};

}  // namespace fulmen::cuda::batch_attention
