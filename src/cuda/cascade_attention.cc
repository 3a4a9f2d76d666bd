// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/cascade_attention.h"

#include "src/cuda/attention.h"

namespace fulmen::cuda {

using attention::AttentionCall, attention::LevelsAbove;
using cascade_attention::Above, cascade_attention::Key, cascade_attention::Params;

void run_level(const AttentionCall& call, const Work<batch_attention::Key, batch_attention::Params>& work,
               const Device& device, const Context& context) {
  Work<Key, Params> level{.key = work.key, .params = {}, .shape = work.shape, .persistent = work.persistent};
  static_cast<batch_attention::Common&>(level.params) = work.params;
  static_cast<attention::Standard&>(level.params.variant) = work.params.variant;
  const LevelsAbove& from = *call.above;
  Above& above = level.params.variant.above;
  above.num_heads = call.dims.num_qo_heads;
  above.most = from.count, above.num_levels = from.num;
  above.to_log2 = 1 / work.params.lse_scale;
  if (from.count > 0) {
    above.out = from.out.as<const float>(), above.lse = from.lse.as<const float>();
    above.out_level = from.out_step / 4, above.lse_level = from.lse_step / 4;
  }
  run(CascadeAttention::kName, level, device, context);
}

// Of what shares prefixes most.
std::vector<Key> CascadeAttention::common_keys(int32_t arch) {
  std::vector<Key> keys;
  for (const Key& key : Attention::common_keys(arch))
    if (key.d_qk == 128 && key.d_vo == 128 && key.kv == key.q && key.warps_q <= 4) keys.push_back(key);
  return keys;
}

}  // namespace fulmen::cuda
