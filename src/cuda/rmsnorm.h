// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/rmsnorm.h>
#include <fulmen/ops/rmsnorm.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct RmsNorm {
  using Args = RmsNormArgs;
  using Key = rmsnorm::Key;
  using Params = rmsnorm::Params;
  static constexpr const char* kName = "rmsnorm";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
