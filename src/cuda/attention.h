// SPDX-License-Identifier: Apache-2.0
// batch_attention: one kernel family for every entry point.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/cuda/batch_attention.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct Attention {
  using Args = attention::AttentionCall;
  using Key = batch_attention::Key;
  using Params = batch_attention::Params;
  static constexpr const char* kName = "batch_attention";
  static const TensorView& where(const Args& a) { return a.args->out; }
  static runtime::Refusal refuses(const Args& a, const runtime::DeviceInfo& device);
  static void launch(const Args& a, const Device& device, const Context& context);
  static void prepare(const Args& a, const Device& device);
  static std::vector<Key> common_keys(int32_t arch);
};

// The kernel that serves head dims and dtypes with tiles of tile_q rows in so much shared memory; empty: none does.
// alone: one CTA per SM, which may hold more keys in flight.
std::optional<batch_attention::Key> attention_key(int32_t tile_q, int64_t d_qk, int64_t d_vo, DType q, DType kv,
                                                  int32_t max_shared_bytes, bool alone);

// The kernel of a call that has lengths (kConfigure) or shapes (kShape); empty: none serves it.
std::optional<batch_attention::Key> choose_attention_key(const attention::AttentionCall& call,
                                                         const runtime::DeviceInfo& device);
// The kernel that a plan of one list, or one list of a plan, is for.
batch_attention::Key planned_attention_key(const attention::AttentionCall& call, const attention::PlanConfig& config,
                                           const Device& device);
// Work per SM, key and row, as the planner counts it.
void set_costs(const batch_attention::Key& key, attention::PlanConfig& config);
int32_t ctas_per_sm(const batch_attention::Key& key, int32_t max_shared_bytes);
// Where keys and values lie.
void set_caches(const AttentionArgs& a, const AttentionDims& d, batch_attention::Common& p);

}  // namespace fulmen::cuda
