// SPDX-License-Identifier: Apache-2.0
// rope, rope_quantize_fp8, rope_append_paged_kv_cache: one kernel.
#pragma once
#include <fulmen/cuda/rope.h>
#include <fulmen/ops/rope.h>
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct Rope {
  using Args = RopeArgs;
  using Key = rope::Key;
  using Params = rope::Params;
  static constexpr const char* kName = "rope";
  static const TensorView& where(const Args& a) { return a.q; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct RopeQuantizeFp8 {
  using Args = RopeQuantizeFp8Args;
  using Key = rope::Key;
  static constexpr const char* kName = "rope_quantize_fp8";
  static constexpr const char* kKernel = Rope::kName;
  static const TensorView& where(const Args& a) { return a.q_rope; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, rope::Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys() { return {}; }  // rope's
};

struct RopeAppendPagedKvCache {
  using Args = RopeAppendPagedKvCacheArgs;
  using Key = rope::Key;
  static constexpr const char* kName = "rope_append_paged_kv_cache";
  static constexpr const char* kKernel = Rope::kName;
  static const TensorView& where(const Args& a) { return a.q_rope; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, rope::Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys() { return {}; }  // rope's
};

}  // namespace fulmen::cuda
