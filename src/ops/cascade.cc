// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/cascade.h>

namespace fulmen::attention {

void cascade(std::span<const AttentionArgs> levels, const Context& context) {
  for (size_t i = 0; i < levels.size(); ++i) {
    const std::string who = "level " + std::to_string(i);
    if (!levels[i].lse.defined() && levels.size() > 1) fail("cascade", who, "has no lse, which the merge needs");
    if (levels[i].options.lse_base != levels[0].options.lse_base)
      fail("cascade", who, "has another lse_base than level 0");
    if (levels[i].sinks.defined() && i > 0) fail("cascade", who, "has sinks, which count once: give them to level 0");
    if (levels[i].out.dtype != levels[0].out.dtype) fail("cascade", who, "has another out dtype than level 0");
    check(levels[i]);  // before anything is written
  }
  for (const AttentionArgs& level : levels) batch_attention(level, context);
  for (size_t i = 1; i < levels.size(); ++i)
    merge_state_in_place(levels[0].out, levels[0].lse, levels[i].out, levels[i].lse, {}, levels[0].options.lse_base,
                         context);
}

}  // namespace fulmen::attention
