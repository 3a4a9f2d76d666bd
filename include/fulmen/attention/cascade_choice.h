// SPDX-License-Identifier: Apache-2.0
// What a backend's "choose_cascade" row is launched with: it reads a cascade's tables where they are, predicts whether
// levels or one flat pass over each request's keys is done first, and leaves tables under which the other has no rows.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/attention/cascade_model.h>

#include <algorithm>

namespace fulmen::attention {

// A longer list of pages than this is read in levels: 16 MiB of ids.
inline constexpr int64_t kMostFlatIds = int64_t(1) << 22;

struct CascadeLevel {
  TensorView qo_indptr, kv_indptr, kv_indices, last_page_len;
  TensorView rows;  // written: i32 like qo_indptr, which it is, or zeros
};

struct CascadeChoice {
  std::vector<CascadeLevel> levels;
  CascadeShape shape;
  int64_t total_q = 0, page_size = 1;
  bool causal = false;                  // the last level
  TensorView flat_rows;                 // written: the flat batch's qo_indptr, or zeros, i32
  TensorView kv_indptr, last_page_len;  // written, if flat: of the flat batch, i32
  TensorView page_ids;                  // the same; a batch that has more of them is run in levels
  TensorView mask;                      // written: u8 per row of q, 1 where levels are to be merged
  MadePlan* made = nullptr;             // the row chooses where this does not say that it did
};

// Ids that page_ids has room for.
inline int64_t num_flat_ids(const std::vector<CascadeLevel>& levels) {
  const int64_t batch = levels.back().qo_indptr.shape[0] - 1;
  int64_t ids = levels.back().kv_indices.shape[0];
  for (size_t i = 0; i + 1 < levels.size(); ++i)
    ids = std::min(kMostFlatIds, ids + batch * std::min(kMostFlatIds, levels[i].kv_indices.shape[0]));
  return std::min(kMostFlatIds, ids);
}

void choose_cascade(const CascadeChoice& choice, const Context& context);
// Whether this device can.
bool chooses_cascades(DeviceType type, int32_t device_id);

}  // namespace fulmen::attention
