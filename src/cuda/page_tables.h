// SPDX-License-Identifier: Apache-2.0
// get_batch_indices_positions, get_seq_lens.
#pragma once
#include <fulmen/cuda/get_batch_indices_positions.h>
#include <fulmen/cuda/get_seq_lens.h>
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/ops/get_seq_lens.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct GetBatchIndicesPositions {
  using Args = GetBatchIndicesPositionsArgs;
  using Key = get_batch_indices_positions::Key;
  using Params = get_batch_indices_positions::Params;
  static constexpr const char* kName = "get_batch_indices_positions";
  static const TensorView& where(const Args& a) { return a.batch_indices; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys() { return {{}}; }
};

struct GetSeqLens {
  using Args = GetSeqLensArgs;
  using Key = get_seq_lens::Key;
  using Params = get_seq_lens::Params;
  static constexpr const char* kName = "get_seq_lens";
  static const TensorView& where(const Args& a) { return a.seq_lens; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys() { return {{}}; }
};

}  // namespace fulmen::cuda
