// SPDX-License-Identifier: Apache-2.0
// Whether a cascade is run in levels or flat, by the prediction that the host makes where it knows the lengths
// (attention/cascade_model.h). Every CTA reads all lengths and comes to the same answer; they share the writing. The
// levels above the last have no rows where flat is run, and the last launch reads tables that are written here: the
// last level's, or each request's pages of all levels. Launched by src/cuda/choose_cascade.cc.
#pragma once
#include <fulmen/core/math.h>
#include <fulmen/cuda/choose_cascade.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/ptx/shared.cuh>
#include <fulmen/cuda/ptx/touch.cuh>
#include <fulmen/cuda/tile/reduce.cuh>
#include <fulmen/cuda/tile/scan.cuh>

namespace fulmen::cuda::choose_cascade {

using Sums = attention::LevelSums<float>;

__device__ __forceinline__ Shared& shared() { return *reinterpret_cast<Shared*>(dynamic_shared()); }

__device__ __forceinline__ int32_t clamp(int64_t x, int64_t low, int64_t high) {
  return int32_t(x < low ? low : x < high ? x : high);
}

// What the tables say of a request, and what that is, as attention_prepare reads it.
struct Numbers {
  Halves qo_begin, qo_end, kv_begin, kv_end, last;
};
__device__ __forceinline__ Numbers numbers_of(const Level& level, int32_t i) {
  return {load_halves(level.qo_indptr, i), load_halves(level.qo_indptr, i + 1), load_halves(level.kv_indptr, i),
          load_halves(level.kv_indptr, i + 1), load_halves(level.last_page_len, i)};
}
struct Request {
  int32_t begin, end;  // queries
  Pages pages;
  int64_t kv_len;
};
__device__ __forceinline__ Request request_of(const Params& p, const Level& level, const Numbers& n) {
  Request r{clamp(number(level.qo_indptr, n.qo_begin), 0, p.total_q), 0, {0, 0}, 0};
  r.end = clamp(number(level.qo_indptr, n.qo_end), r.begin, p.total_q);
  const int64_t begin = number(level.kv_indptr, n.kv_begin), end = number(level.kv_indptr, n.kv_end);
  if (begin < 0 || end <= begin || begin > level.num_ids) return r;
  r.pages = {int32_t(begin), int32_t((end < level.num_ids ? end : level.num_ids) - begin)};
  if (r.pages.count > 0)
    r.kv_len = int64_t(r.pages.count - 1) * p.page_size + clamp(number(level.last_page_len, n.last), 1, p.page_size);
  return r;
}
__device__ __forceinline__ Request request_of(const Params& p, const Level& level, int32_t i) {
  return request_of(p, level, numbers_of(level, i));
}

// The last request that begins at or before a row.
__device__ __forceinline__ int32_t owner_of(const Level& level, int32_t row) {
  int32_t low = 0, high = level.num_requests;
  while (high - low > 1) {
    const int32_t middle = low + (high - low) / 2;
    (level.qo_indptr[middle] <= row ? low : high) = middle;
  }
  return low;
}

// The list of a request of the last level: pages of each level, those of its owners first; from level `first` on.
struct Joined {
  Pages pages[kLevels];
  int64_t count = 0;
  bool is_same = true;  // flat attention over it is what the levels compute
};
__device__ __forceinline__ Joined join(const Params& p, const Request& own, int32_t first) {
  Joined j;
#pragma unroll
  for (int32_t l = 0; l < kLevels; ++l) {
    j.pages[l] = {0, 0};
    if (l < first || l >= p.num_levels || own.begin >= own.end) continue;
    const Level& level = p.levels[l];
    if (l + 1 == p.num_levels) {
      j.pages[l] = own.pages;
      if (p.causal && own.kv_len < own.end - own.begin) j.is_same = false;
    } else if (level.num_requests == 0) {
      j.is_same = false;
    } else {
      const Request above = request_of(p, level, owner_of(level, own.begin));
      j.is_same &= above.begin <= own.begin && own.end <= above.end;
      j.pages[l] = above.pages;  // other keys follow: its last page must be full
      j.is_same &= above.kv_len == int64_t(above.pages.count) * p.page_size;
    }
    j.count += j.pages[l].count;
  }
  return j;
}

// Over all requests of each level.
struct Totals {
  Sums levels[kLevels];
  float pages = 0, differ = 0;  // of the flat batch; requests whose list is not the same
};
// f(place, number, whether the largest counts) for all of them.
template <class F>
__device__ __forceinline__ void for_sums(const Params& p, Totals& t, F&& f) {
#pragma unroll
  for (int32_t l = 0; l < kLevels; ++l) {
    if (l >= p.num_levels) continue;
    Sums& s = t.levels[l];
    float* all[kSums] = {&s.requests,    &s.rows,  &s.keys,         &s.row_keys,
                         &s.padded_keys, &s.tiles, &s.largest_tile, &s.most_keys};
#pragma unroll
    for (int32_t i = 0; i < kSums; ++i) f(l * kSums + i, *all[i], i >= kSums - 2);
  }
  f(kLevels * kSums, t.pages, false), f(kLevels * kSums + 1, t.differ, false);
}

// Over the CTA, of which so many warps have requests, in a fixed order.
__device__ __forceinline__ void add_up(const Params& p, Totals& t, int32_t num_warps) {
  Shared& s = shared();
  if (warp_index() < num_warps)
    for_sums(p, t, [&](int32_t place, float x, bool largest) {
      x = largest ? reduce_warp<Max>(x) : reduce_warp<Sum>(x);
      if (warp_lane() == 0) s.sums[place][warp_index()] = x;
    });
  sync_cta();
#pragma unroll 1
  for (int32_t place = warp_index(); place < kLevels * kSums + 2; place += kThreads / 32) {
    if (place >= p.num_levels * kSums && place < kLevels * kSums) continue;
    const bool largest = place < kLevels * kSums && place % kSums >= kSums - 2;
    float x = warp_lane() < num_warps ? s.sums[place][warp_lane()] : 0;
    x = largest ? reduce_warp<Max>(x) : reduce_warp<Sum>(x);
    if (warp_lane() == 0) s.totals[place] = x;
  }
  sync_cta();
  for_sums(p, t, [&](int32_t place, float& x, bool) { x = s.totals[place]; });
}

// Tables are asked for at once, whatever the level.
__device__ __forceinline__ Totals totals_of(const Params& p) {
  Totals t;
  int32_t most = 0;
#pragma unroll
  for (int32_t l = 0; l < kLevels; ++l)
    if (l < p.num_levels) most = math::max(most, p.levels[l].num_requests);
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < most; i += kThreads) {
    Numbers numbers[kLevels];
#pragma unroll
    for (int32_t l = 0; l < kLevels; ++l)
      if (l < p.num_levels && i < p.levels[l].num_requests) numbers[l] = numbers_of(p.levels[l], i);
#pragma unroll
    for (int32_t l = 0; l < kLevels; ++l) {
      if (l >= p.num_levels || i >= p.levels[l].num_requests) continue;
      const Request r = request_of(p, p.levels[l], numbers[l]);
      if (r.begin >= r.end) continue;
      t.levels[l].add(p.shape, float(r.end - r.begin), float(r.kv_len));
      if (l + 1 < p.num_levels) continue;
      const Joined joined = join(p, r, 0);
      t.pages += float(joined.count), t.differ += joined.is_same ? 0 : 1;
    }
  }
  add_up(p, t, math::min(kThreads / 32, (most + 31) / 32));
  return t;
}

__device__ __forceinline__ bool is_flat(const Params& p) {
  const Totals t = totals_of(p);
  if (t.differ > 0 || t.pages > float(p.max_ids)) return false;
  Sums own;
#pragma unroll
  for (int32_t l = 0; l < kLevels; ++l)
    if (l + 1 == p.num_levels) own = t.levels[l];
  const attention::CascadeModel<float> model{p.shape};
  return model.flat_us<kLevels>(t.levels, p.num_levels, own) < model.levels_us<kLevels>(t.levels, p.num_levels, own);
}

// Of the levels above the last.
__device__ __forceinline__ void write_rows(const Params& p, bool flat) {
  const int32_t first = int32_t(blockIdx.x * kThreads + threadIdx.x), step = int32_t(gridDim.x) * kThreads;
#pragma unroll
  for (int32_t l = 0; l + 1 < kLevels; ++l) {
    if (l + 1 >= p.num_levels) continue;
    const Level& level = p.levels[l];
#pragma unroll 1
    for (int32_t i = first; i <= level.num_requests; i += step)
      level.rows[i] = flat ? 0 : clamp(level.qo_indptr[i], 0, p.total_q);
  }
  if (first == 0) *p.num_above = flat ? 0 : p.num_levels - 1;
}

// Ids of the requests whose lists are in shared memory, one per thread and turn, by all CTAs.
__device__ __forceinline__ void copy_ids(const Params& p, int32_t num_requests, int32_t begin, int32_t end) {
  const Shared& s = shared();
#pragma unroll 1
  for (int64_t at = int64_t(begin) + blockIdx.x * kThreads + threadIdx.x; at < end; at += gridDim.x * kThreads) {
    int32_t low = 0, high = num_requests;
    while (high - low > 1) {
      const int32_t middle = low + (high - low) / 2;
      (s.begins[middle] <= at ? low : high) = middle;
    }
    int32_t k = int32_t(at) - s.begins[low];
#pragma unroll
    for (int32_t l = 0; l < kLevels; ++l) {
      if (l >= p.num_levels) continue;
      const Pages pages = s.pages[l][low];
      if (k >= 0 && k < pages.count) p.page_ids[at] = int32_t(p.levels[l].page_ids[pages.begin + k]);
      k -= pages.count;
    }
  }
}

// first_level: of those whose pages are listed.
__device__ __forceinline__ void write_tables(const Params& p, int32_t first_level) {
  Shared& s = shared();
  const Level& own = p.levels[p.num_levels - 1];
  const int32_t thread = int32_t(threadIdx.x);
  uint32_t begin = 0;
#pragma unroll 1
  for (int32_t first = 0; first < own.num_requests; first += kThreads) {
    const int32_t i = first + thread;
    Joined joined;
    if (i < own.num_requests)
      joined = join(p, request_of(p, own, i), first_level);
    else
      for (Pages& pages : joined.pages) pages = {0, 0};
    uint32_t total = 0;
    const uint32_t count = uint32_t(math::min(joined.count, int64_t(p.max_ids)));
    const uint32_t at = math::min(begin + sum_before<kThreads>(count, s.warp_sums, &total), uint32_t(p.max_ids));
    s.begins[thread] = int32_t(at);
#pragma unroll
    for (int32_t l = 0; l < kLevels; ++l) s.pages[l][thread] = joined.pages[l];
    if (blockIdx.x == 0 && i < own.num_requests) {
      int32_t last = p.page_size;
#pragma unroll
      for (int32_t l = 0; l < kLevels; ++l)
        if (l + 1 == p.num_levels && joined.pages[l].count > 0) last = clamp(own.last_page_len[i], 1, p.page_size);
      p.kv_indptr[i] = int32_t(at), p.last_page_len[i] = last;
      if (i + 1 == own.num_requests) p.kv_indptr[i + 1] = int32_t(math::min(at + count, uint32_t(p.max_ids)));
    }
    sync_cta();
    const uint32_t end = math::min(begin + total, uint32_t(p.max_ids));  // tables that contradict themselves
    copy_ids(p, math::min(int32_t(kThreads), own.num_requests - first), int32_t(begin), int32_t(end));
    begin = end;
    sync_cta();
  }
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  static_assert(K.threads == kThreads);
  touch(p);
  wait_for_predecessor();
  allow_successor();
  const bool flat = is_flat(p);
  write_rows(p, flat);
  write_tables(p, flat ? 0 : p.num_levels - 1);
}

}  // namespace fulmen::cuda::choose_cascade
