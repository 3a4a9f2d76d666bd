// SPDX-License-Identifier: Apache-2.0
// sample, token_filter, softmax, top_k, top_k_transform, chain_speculative_sampling.
#pragma once
#include <fulmen/cuda/chain_speculative_sampling.h>
#include <fulmen/cuda/sample.h>
#include <fulmen/cuda/softmax.h>
#include <fulmen/cuda/token_filter.h>
#include <fulmen/cuda/top_k.h>
#include <fulmen/cuda/top_k_transform.h>
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/ops/sample.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/token_filter.h>
#include <fulmen/ops/top_k.h>
#include <fulmen/ops/top_k_transform.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct Sample {
  using Args = SampleArgs;
  using Key = sample::Key;
  using Params = sample::Params;
  static constexpr const char* kName = "sample";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct FilterTokens {
  using Args = TokenFilterArgs;
  using Key = token_filter::Key;
  using Params = token_filter::Params;
  static constexpr const char* kName = "token_filter";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct Softmax {
  using Args = SoftmaxArgs;
  using Key = softmax::Key;
  using Params = softmax::Params;
  static constexpr const char* kName = "softmax";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct TopK {
  using Args = TopKArgs;
  using Key = top_k::Key;
  using Params = top_k::Params;
  static constexpr const char* kName = "top_k";
  static const TensorView& where(const Args& a) { return a.values; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct TopKTransform {
  using Args = TopKTransformArgs;
  using Key = top_k_transform::Key;
  using Params = top_k_transform::Params;
  static constexpr const char* kName = "top_k_transform";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

struct ChainSpeculativeSampling {
  using Args = ChainSpeculativeSamplingArgs;
  using Key = chain_speculative_sampling::Key;
  using Params = chain_speculative_sampling::Params;
  static constexpr const char* kName = "chain_speculative_sampling";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static Work<Key, Params> work(const Args& a, const Device& device);
  static std::vector<Key> common_keys();
};

}  // namespace fulmen::cuda
