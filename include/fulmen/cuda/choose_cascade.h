// SPDX-License-Identifier: Apache-2.0
// What the kernel that chooses between a cascade's levels and a flat pass and the code that launches it share.
#pragma once
#include <fulmen/attention/cascade_model.h>
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda::choose_cascade {

inline constexpr int32_t kLevels = attention::kMostCascadeLevels;
inline constexpr int32_t kThreads = 512;
inline constexpr int32_t kSums = 8;  // over a level's requests

struct Key {
  int32_t threads = kThreads;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("threads", k.threads);
  }
};
FULMEN_FN constexpr int32_t num_threads(const Key& k) { return k.threads; }
FULMEN_FN constexpr int32_t min_ctas(const Key&) { return 1; }  // per SM: registers are there

struct Level {
  IdVector qo_indptr, kv_indptr, page_ids, last_page_len;
  int32_t num_requests, num_ids;
  int32_t* rows;  // [num_requests + 1]; null: the last level's
};

struct Params {
  Level levels[kLevels];
  int32_t num_levels;
  attention::CascadeShape shape;
  int32_t total_q, page_size;
  bool causal;
  int32_t *kv_indptr, *last_page_len, *page_ids;
  int32_t max_ids;
  int32_t* num_above;
};

// A page list in a level's ids.
struct Pages {
  int32_t begin, count;
};
struct Shared {
  float sums[kLevels * kSums + 2][kThreads / 32], totals[kLevels * kSums + 2];
  int32_t begins[kThreads];  // of requests in the flat list
  Pages pages[kLevels][kThreads];
  uint32_t warp_sums[kThreads / 32];
};

}  // namespace fulmen::cuda::choose_cascade
