// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/rope.h>
#include <fulmen/ops/rope.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct Rope {
  using Args = RopeArgs;
  using Key = rope::Key;
  using Params = rope::Params;
  static constexpr const char* kName = "rope";
  static const TensorView& where(const Args& a) { return a.q; }
  static runtime::Refusal refuses(const Args&) { return {}; }
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
