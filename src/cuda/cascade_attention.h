// SPDX-License-Identifier: Apache-2.0
// Attention's launches of a cascade: kernels of their own, which take in what the levels above left.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/cuda/cascade_attention.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

// For packs; nobody calls it as an op.
struct CascadeAttention {
  using Key = cascade_attention::Key;
  static constexpr const char* kName = "cascade_attention";
  static std::vector<Key> common_keys(int32_t arch);
};

// Launches what attention would for this call, as a level below call.above.
void run_level(const attention::AttentionCall& call, const Work<batch_attention::Key, batch_attention::Params>& work,
               const Device& device, const Context& context);

}  // namespace fulmen::cuda
