// SPDX-License-Identifier: Apache-2.0
// per_tensor_quant_fp8, per_token_group_quant_fp8.
#pragma once
#include <fulmen/cuda/per_tensor_quant_fp8.h>
#include <fulmen/cuda/per_token_group_quant_fp8.h>
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/ops/per_token_group_quant_fp8.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct PerTensorQuantFp8 {
  using Args = PerTensorQuantFp8Args;
  using Key = per_tensor_quant_fp8::Key;
  using Params = per_tensor_quant_fp8::Params;
  static constexpr const char* kName = "per_tensor_quant_fp8";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static void launch(const Args& a, const Device& device, const Context& context);
  static void prepare(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct PerTokenGroupQuantFp8 {
  using Args = PerTokenGroupQuantFp8Args;
  using Key = per_token_group_quant_fp8::Key;
  using Params = per_token_group_quant_fp8::Params;
  static constexpr const char* kName = "per_token_group_quant_fp8";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
