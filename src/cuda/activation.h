// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/cuda/act_and_mul.h>
#include <fulmen/ops/act_and_mul.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct ActAndMul {
  using Args = ActAndMulArgs;
  using Key = act_and_mul::Key;
  using Params = act_and_mul::Params;
  static constexpr const char* kName = "act_and_mul";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
