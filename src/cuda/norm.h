// SPDX-License-Identifier: Apache-2.0
// rmsnorm, fused_add_rmsnorm, layernorm.
#pragma once
#include <fulmen/cuda/fused_add_rmsnorm.h>
#include <fulmen/cuda/layernorm.h>
#include <fulmen/cuda/rmsnorm.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/layernorm.h>
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

struct FusedAddRmsNorm {
  using Args = FusedAddRmsNormArgs;
  using Key = fused_add_rmsnorm::Key;
  using Params = fused_add_rmsnorm::Params;
  static constexpr const char* kName = "fused_add_rmsnorm";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct LayerNorm {
  using Args = LayerNormArgs;
  using Key = layernorm::Key;
  using Params = layernorm::Params;
  static constexpr const char* kName = "layernorm";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
