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
#include <fulmen/cuda/tile/reduce.cuh>
#include <fulmen/cuda/tile/scan.cuh>

namespace fulmen::cuda::choose_cascade {

using Sums = attention::LevelSums<float>;

__device__ __forceinline__ Shared& shared() { return *reinterpret_cast<Shared*>(dynamic_shared()); }

__device__ __forceinline__ int32_t clamp(int64_t x, int64_t low, int64_t high) {
  return int32_t(x < low ? low : x < high ? x : high);
}

// Queries of a request, as attention_prepare reads them.
struct Rows {
  int32_t begin, end;
};
__device__ __forceinline__ Rows rows_of(const Params& p, const Level& level, int32_t i) {
  const int32_t begin = clamp(level.qo_indptr[i], 0, p.total_q);
  return {begin, clamp(level.qo_indptr[i + 1], begin, p.total_q)};
}
__device__ __forceinline__ Pages pages_of(const Level& level, int32_t i) {
  const int64_t begin = level.kv_indptr[i], end = level.kv_indptr[i + 1];
  if (begin < 0 || end < begin || begin > level.num_ids) return {0, 0};
  return {int32_t(begin), int32_t((end < level.num_ids ? end : level.num_ids) - begin)};
}
__device__ __forceinline__ int64_t kv_len_of(const Params& p, const Level& level, int32_t i, const Pages& pages) {
  if (pages.count == 0) return 0;
  return int64_t(pages.count - 1) * p.page_size + clamp(level.last_page_len[i], 1, p.page_size);
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

// The list of a request: pages of each level, those of its owners first; from level `first` on.
struct Joined {
  Pages pages[kLevels];
  int64_t count = 0;
  bool is_same = true;  // flat attention over it is what the levels compute
};
__device__ __forceinline__ Joined join(const Params& p, int32_t i, const Rows& rows, int32_t first) {
  Joined j;
#pragma unroll
  for (int32_t l = 0; l < kLevels; ++l) {
    j.pages[l] = {0, 0};
    if (l < first || l >= p.num_levels || rows.begin >= rows.end) continue;
    const Level& level = p.levels[l];
    if (l + 1 == p.num_levels) {
      j.pages[l] = pages_of(level, i);
      if (p.causal && kv_len_of(p, level, i, j.pages[l]) < rows.end - rows.begin) j.is_same = false;
    } else if (level.num_requests == 0) {
      j.is_same = false;
    } else {
      const int32_t owner = owner_of(level, rows.begin);
      const Rows above = rows_of(p, level, owner);
      j.is_same &= above.begin <= rows.begin && rows.end <= above.end;
      j.pages[l] = pages_of(level, owner);  // other keys follow: its last page must be full
      j.is_same &= kv_len_of(p, level, owner, j.pages[l]) == int64_t(j.pages[l].count) * p.page_size;
    }
    j.count += j.pages[l].count;
  }
  return j;
}

// Over the CTA, in a fixed order.
__device__ __forceinline__ void add_up(Sums& s, float& pages, float& differ) {
  Shared& shared_sums = shared();
  float* all[] = {&s.requests, &s.rows, &s.keys, &s.row_keys,     &s.padded_keys,
                  &s.tiles,    &pages,  &differ, &s.largest_tile, &s.most_keys};
#pragma unroll
  for (int32_t i = 0; i < 10; ++i) {
    const float x = i < 8 ? reduce_warp<Sum>(*all[i]) : reduce_warp<Max>(*all[i]);
    if (warp_lane() == 0) shared_sums.sums[i][warp_index()] = x;
  }
  sync_cta();
#pragma unroll
  for (int32_t i = 0; i < 10; ++i) {
    const float x = warp_lane() < kThreads / 32 ? shared_sums.sums[i][warp_lane()] : 0;
    *all[i] = i < 8 ? reduce_warp<Sum>(x) : reduce_warp<Max>(x);
  }
  sync_cta();
}

__device__ __forceinline__ bool is_flat(const Params& p) {
  Sums levels[kLevels], own;
  float pages = 0, differ = 0;
#pragma unroll
  for (int32_t l = 0; l < kLevels; ++l) {
    if (l >= p.num_levels) continue;
    const Level& level = p.levels[l];
#pragma unroll 1
    for (int32_t i = int32_t(threadIdx.x); i < level.num_requests; i += kThreads) {
      const Rows rows = rows_of(p, level, i);
      if (rows.begin >= rows.end) continue;
      levels[l].add(p.shape, float(rows.end - rows.begin), float(kv_len_of(p, level, i, pages_of(level, i))));
      if (l + 1 < p.num_levels) continue;
      const Joined joined = join(p, i, rows, 0);
      pages += float(joined.count), differ += joined.is_same ? 0 : 1;
    }
    float before_pages = l + 1 < p.num_levels ? 0 : pages, before_differ = l + 1 < p.num_levels ? 0 : differ;
    add_up(levels[l], before_pages, before_differ);
    if (l + 1 == p.num_levels) pages = before_pages, differ = before_differ, own = levels[l];
  }
  if (differ > 0 || pages > float(p.max_ids)) return false;
  const attention::CascadeModel<float> model{p.shape};
  return model.flat_us<kLevels>(levels, p.num_levels, own) < model.levels_us<kLevels>(levels, p.num_levels, own);
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
      joined = join(p, i, rows_of(p, own, i), first_level);
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
  wait_for_predecessor();
  allow_successor();
  const bool flat = is_flat(p);
  write_rows(p, flat);
  write_tables(p, flat ? 0 : p.num_levels - 1);
}

}  // namespace fulmen::cuda::choose_cascade
