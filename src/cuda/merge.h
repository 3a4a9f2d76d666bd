// SPDX-License-Identifier: Apache-2.0
// merge_state, merge_states: one kernel.
#pragma once
#include <fulmen/cuda/merge_states.h>
#include <fulmen/ops/merge_state.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct MergeStates {
  using Args = MergeStatesArgs;
  using Key = merge_states::Key;
  using Params = merge_states::Params;
  static constexpr const char* kName = "merge_states";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct MergeState {
  using Args = MergeStateArgs;
  using Key = merge_states::Key;
  static constexpr const char* kName = "merge_state";
  static constexpr const char* kKernel = MergeStates::kName;
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, merge_states::Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys() { return {}; }  // merge_states'
};

}  // namespace fulmen::cuda
