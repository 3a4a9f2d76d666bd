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
  // Of copies per tile: a warp with tiles of its own looks at keys while their values are on their way.
  static constexpr int32_t kGroups = K.warps_q == 1 && K.tile_kv == K.block_kv ? 2 : 1;

  // Keys of one request and head, from first_key on; the tiles of this group are tile_kv * num_groups apart.
  __device__ __forceinline__ Loader(const ParamsOf<Variant>& p, const attention::PlanItem& item, int32_t begin,
                                    int32_t end, int32_t thread)
      : p_(p),
        first_(begin + Group<K>::index(thread) * K.tile_kv),
        end_(end),
        places_(reinterpret_cast<Place*>(dynamic_shared() + kShared.places) + Group<K>::index(thread) * 2 * K.tile_kv),
        ring_(shared_address(dynamic_shared() + kShared.stages) +
              uint32_t(Group<K>::index(thread) * K.stages * kShared.stage_bytes)) {
    if (!kAlone && thread != 0) return;
    const bool paged = p.page_ids.data != nullptr;
    From& from = kAlone ? from_ : control().from;
    int64_t base = 0;
    if (p.kv_begin.data != nullptr)
      base = item.request_idx < kBases ? control().bases[item.request_idx] : p.kv_begin[item.request_idx];
    from.first_id = p.table_stride > 0 ? item.request_idx * p.table_stride : base;
    from.k = p.k + item.kv_head * p.k_head + (paged ? 0 : base * p.k_token);
    from.v = p.v + item.kv_head * p.v_head + (paged ? 0 : base * p.v_token);
  }
  // Whether each thread keeps for itself where the request's keys are: no CTA barrier before start().
  static constexpr bool kAlone = K.warps_q == 1 && K.m_tiles == 1;

  static constexpr int32_t kStep = K.tile_kv * num_groups(K);
  __device__ __forceinline__ int32_t first_key(int32_t tile) const { return first() + tile * kStep; }
  // The range of keys; read again at each use where the main loop has no registers for it.
  static constexpr bool kReads = K.warps_q > 4;
  __device__ __forceinline__ int32_t first() const { return kReads ? int32_t(range().word[0]) : first_; }
  __device__ __forceinline__ int32_t end() const { return kReads ? int32_t(range().word[1]) : end_; }
  __device__ __forceinline__ uint32_t stage(int32_t tile) const {
    return ring_ + uint32_t(tile % K.stages * kShared.stage_bytes);
  }

  struct Pages {
    int32_t ids[K.stages];
  };
  // Asks for the first pages' ids. All threads of the CTA have constructed theirs.
  __device__ __forceinline__ Pages ask() {
    Pages pages;
#pragma unroll
    for (int32_t tile = 0; tile < K.stages; ++tile) pages.ids[tile] = fetch(tile);
    return pages;
  }
  // Starts the first stages - 1 tiles.
  __device__ __forceinline__ void start(const Pages& pages) {
#pragma unroll 1
    for (int32_t tile = 0;; ++tile) {
#pragma unroll
      for (int32_t i = 0; i < K.stages; ++i) page_ = i == tile ? pages.ids[i] : page_;
      place(tile);
      if (tile == K.stages - 1) break;
      Group<K>::sync();
      issue<false>(tile);
    }
    page_ = fetch(K.stages);
  }
  // Waits for a tile, for all warps of the group, and starts the one that takes its predecessor's stage: with one stage
  // itself, before it waits.
  __device__ __forceinline__ void advance(int32_t tile) {
    if constexpr (K.stages > 1) wait_copies<(K.stages - 2) * kGroups + kGroups - 1>();
    Group<K>::sync();
    issue<true>(tile + K.stages - 1);
    place(tile + K.stages);
    page_ = fetch(tile + K.stages + 1);
    if constexpr (K.stages == 1) {
      wait_copies<0>();
      Group<K>::sync();
    }
  }
  // After advance(), of whose tile only the keys are sure to be there.
  __device__ __forceinline__ static void await_values() {
    wait_copies<(K.stages - 1) * kGroups>();
    Group<K>::sync();
  }

 private:
  __device__ __forceinline__ static Bits<8> range() { return load_shared<8>(shared_address(&control().begin)); }
  __device__ __forceinline__ const From& from() const { return kAlone ? from_ : control().from; }
  __device__ __forceinline__ static Control& control() { return *reinterpret_cast<Control*>(dynamic_shared()); }
  __device__ __forceinline__ static int32_t this_thread() { return Group<K>::thread(fresh_thread()); }
  // Keys that are not in pages, where the kernel has code for them.
  __device__ __forceinline__ bool is_straight() const {
    return K.warps_q > 4 && kEvenRows && p_.page_ids.data == nullptr;
  }
  // A thread's row of a tile: one row per thread, if there are enough.
  static_assert(K.tile_kv <= Group<K>::kThreads);
  // Whether a thread's copies are of one chunk of some rows.
  static constexpr bool kEvenRows =
      kChunksK == kChunksV && Group<K>::kThreads % kChunksK == 0 && K.tile_kv * kChunksK % Group<K>::kThreads == 0;

  // The id of a row's page; it waits for no other.
  __device__ __forceinline__ int32_t fetch(int32_t tile) const {
    const int32_t thread = this_thread(), key = first_key(tile) + thread;
    int32_t id = 0;
    if (p_.page_ids.data != nullptr && thread < K.tile_kv && key < end())
      id = p_.page_ids.low(from().first_id + p_.page_size.quotient(key));
    return id;
  }

  __device__ __forceinline__ void place(int32_t tile) const {
    const int32_t row = this_thread(), key = first_key(tile) + row;
    if (row >= K.tile_kv || is_straight()) return;
    Place at{0, 0};
    if (key < end()) {
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

  // A thread copies one chunk of every so many rows, of keys and of values; four rows' places are read before any of
  // them is copied. Few registers hold what all its copies share; the rest is added anew for each tile.
  // kWhole: the tile has all its rows and chunks.
  template <bool kWhole>
  __device__ __forceinline__ void copy_both(uint32_t to, const Place* places, int32_t num_rows) const {
    using At = Swizzle<kChunksK>;
    constexpr int32_t kRows = Group<K>::kThreads / kChunksK;  // a power of two: turns of sums are exclusive ors
    constexpr int32_t kBatch = K.tile_kv / kRows % 4 == 0 ? 4 : 1;
    const int32_t thread = this_thread(), row = thread / kChunksK, chunk = thread % kChunksK;
    const int32_t turned = chunk ^ At::turn(row);
    const char *k = from().k + chunk * 16, *v = from().v + chunk * 16;
    to += uint32_t(row * kChunksK * 16), places += row, num_rows -= row;
    const int32_t num_k = chunk < p_.d_qk * kSize / 16 ? num_rows : 0;
    const int32_t num_v = chunk < p_.d_vo * kSize / 16 ? num_rows : 0;
#pragma unroll
    for (int32_t first = 0; first < K.tile_kv; first += kRows * kBatch) {
      Place at[kBatch];
#pragma unroll
      for (int32_t i = 0; i < kBatch; ++i) at[i] = load_place(places + first + i * kRows);
#pragma unroll
      for (int32_t i = 0; i < kBatch; ++i) {
        const int32_t r = first + i * kRows;
        const uint32_t there = to + uint32_t((r * kChunksK + (turned ^ At::turn(r))) * 16);
        copy_async_16(there, k + at[i].k, kWhole || r < num_k);
        copy_async_16(there + uint32_t(kValues), v + at[i].v, kWhole || r < num_v);
      }
    }
  }
  // Of keys that lie one after the other: their places are not looked up.
  template <bool kWhole>
  __device__ __forceinline__ void copy_straight(uint32_t to, int32_t first, int32_t num_rows) const {
    using At = Swizzle<kChunksK>;
    constexpr int32_t kRows = Group<K>::kThreads / kChunksK;
    const int32_t thread = this_thread(), row = thread / kChunksK, chunk = thread % kChunksK;
    const int32_t turned = chunk ^ At::turn(row);
    const char *k = from().k + (first + row) * p_.k_token, *v = from().v + (first + row) * p_.v_token;
    const int64_t step_k = kRows * p_.k_token, step_v = kRows * p_.v_token;
    k += chunk * 16, v += chunk * 16, to += uint32_t(row * kChunksK * 16), num_rows -= row;
    const int32_t num_k = chunk < p_.d_qk * kSize / 16 ? num_rows : 0;
    const int32_t num_v = chunk < p_.d_vo * kSize / 16 ? num_rows : 0;
#pragma unroll
    for (int32_t r = 0; r < K.tile_kv; r += kRows, k += step_k, v += step_v) {
      const uint32_t there = to + uint32_t((r * kChunksK + (turned ^ At::turn(r))) * 16);
      copy_async_16(there, kWhole || r < num_k ? k : from().k, kWhole || r < num_k);
      copy_async_16(there + uint32_t(kValues), kWhole || r < num_v ? v : from().v, kWhole || r < num_v);
    }
  }
  // The same for keys or for values alone. place: keys' or values' of the first row.
  template <bool kWhole>
  __device__ __forceinline__ void copy_one(uint32_t to, const char* from, const int64_t* place, int32_t num_rows,
                                           int32_t num_chunks) const {
    using At = Swizzle<kChunksK>;
    constexpr int32_t kRows = Group<K>::kThreads / kChunksK, kBatch = K.tile_kv / kRows % 4 == 0 ? 4 : 1;
    const int32_t thread = this_thread(), row = thread / kChunksK, chunk = thread % kChunksK;
    const int32_t turned = chunk ^ At::turn(row), num = chunk < num_chunks ? num_rows - row : 0;
    from += chunk * 16, to += uint32_t(row * kChunksK * 16), place += row * 2;
#pragma unroll
    for (int32_t first = 0; first < K.tile_kv; first += kRows * kBatch) {
      int64_t at[kBatch];
#pragma unroll
      for (int32_t i = 0; i < kBatch; ++i)
        at[i] = bit_cast<int64_t>(load_shared<8>(shared_address(place + (first + i * kRows) * 2)));
#pragma unroll
      for (int32_t i = 0; i < kBatch; ++i) {
        const int32_t r = first + i * kRows;
        copy_async_16(to + uint32_t((r * kChunksK + (turned ^ At::turn(r))) * 16), from + at[i], kWhole || r < num);
      }
    }
  }
  template <bool kWhole>
  __device__ __forceinline__ void copy_in_turn(uint32_t to, const Place* places, int32_t num_rows) const {
    copy_one<kWhole>(to, from().k, &places->k, num_rows, p_.d_qk * kSize / 16);
    commit_copies();
    copy_one<kWhole>(to + uint32_t(kValues), from().v, &places->v, num_rows, p_.d_vo * kSize / 16);
  }
  __device__ __forceinline__ static Place load_place(const Place* from) {
    return bit_cast<Place>(load_shared<16>(shared_address(from)));
  }

  // The same for rows of any number of chunks.
  template <int32_t kChunks>
  __device__ __forceinline__ void copy_rows(uint32_t to, const char* from, int64_t Place::*offset, const Place* places,
                                            int32_t num_rows, int32_t num_chunks) const {
    constexpr int32_t kThreads = Group<K>::kThreads, kCopies = K.tile_kv * kChunks;
    const int32_t thread = this_thread();
#pragma unroll
    for (int32_t i = 0; i < kCopies; i += kThreads) {
      const int32_t at = i + thread, r = at / kChunks, c = at % kChunks;
      if (kCopies % kThreads != 0 && at >= kCopies) break;
      copy_async_16(to + uint32_t(Swizzle<kChunks>::at(r, c)), from + places[r].*offset + c * 16,
                    r < num_rows && c < num_chunks);
    }
  }

  template <bool kMayBeWhole>
  __device__ __forceinline__ void issue(int32_t tile) const {
    const int32_t num_rows = end() - first_key(tile);
    if (num_rows > 0) {
      const Place* places = places_ + tile % 2 * K.tile_kv;
      const uint32_t to = stage(tile);
      if constexpr (kEvenRows) {
        const bool whole = kMayBeWhole && num_rows >= K.tile_kv && p_.d_qk == K.d_qk && p_.d_vo == K.d_vo;
        const int32_t first = first_key(tile);
        if (is_straight())
          whole ? copy_straight<true>(to, first, num_rows) : copy_straight<false>(to, first, num_rows);
        else if constexpr (kGroups == 2)
          whole ? copy_in_turn<true>(to, places, num_rows) : copy_in_turn<false>(to, places, num_rows);
        else
          whole ? copy_both<true>(to, places, num_rows) : copy_both<false>(to, places, num_rows);
      } else {
        copy_rows<kChunksK>(to, from().k, &Place::k, places, num_rows, p_.d_qk * kSize / 16);
        if constexpr (kGroups == 2) commit_copies();
        copy_rows<kChunksV>(to + uint32_t(kValues), from().v, &Place::v, places, num_rows, p_.d_vo * kSize / 16);
      }
    } else if constexpr (kGroups == 2) {
      commit_copies();
    }
    commit_copies();
  }

  const ParamsOf<Variant>& p_;
  int32_t first_, end_;
  Place* places_;
  uint32_t ring_;
  From from_;
  int32_t page_ = 0;
};

}  // namespace fulmen::cuda::batch_attention
