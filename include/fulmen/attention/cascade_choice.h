// SPDX-License-Identifier: Apache-2.0
// What a backend's "choose_cascade" row is launched with: it reads a cascade's tables where they are, predicts whether
// levels or one flat pass over each request's keys is done first, and leaves tables for it: where that is the flat
// pass, the levels above have no rows, and the last launch has the pages of all levels.
//
// A backend with this row also runs levels: its attention takes in what the levels above left (AttentionCall::above).
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/attention/cascade_model.h>

#include <algorithm>

namespace fulmen::attention {

// A longer list of joined pages than this is read in levels: 16 MiB of ids.
inline constexpr int64_t kMostFlatIds = int64_t(1) << 22;

struct CascadeLevel {
  TensorView qo_indptr, kv_indptr, kv_indices, last_page_len;
  TensorView rows;  // written, but for the last level: i32 like qo_indptr, which it is, or zeros
};

struct CascadeChoice {
  std::vector<CascadeLevel> levels;
  CascadeShape shape;
  int64_t total_q = 0, page_size = 1;
  bool causal = false;                  // the last level
  TensorView kv_indptr, last_page_len;  // written: of the last launch, i32
  TensorView page_ids;                  // the same; a flat batch that has more of them is run in levels
  TensorView num_above;                 // written: i32 [1], levels above the last launch's
  MadePlan* made = nullptr;             // the row chooses where this does not say that it did
};

// Ids that page_ids needs room for.
inline int64_t num_joined_ids(const std::vector<CascadeLevel>& levels) {
  const int64_t batch = levels.back().qo_indptr.shape[0] - 1, own = levels.back().kv_indices.shape[0];
  int64_t ids = own;
  for (size_t i = 0; i + 1 < levels.size(); ++i)
    ids = std::min(kMostFlatIds, ids + batch * std::min(kMostFlatIds, levels[i].kv_indices.shape[0]));
  return std::max(own, ids);
}

void choose_cascade(const CascadeChoice& choice, const Context& context);
// Whether this device can, and merges levels in its attention.
bool chooses_cascades(DeviceType type, int32_t device_id);

}  // namespace fulmen::attention
