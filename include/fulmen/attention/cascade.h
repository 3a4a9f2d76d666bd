// SPDX-License-Identifier: Apache-2.0
// Attention over a cache that is shared in levels: a prefix of all requests, prefixes of groups, each request's own
// keys. Every level is one attention call with its own tables, in which a row of queries sees that level's keys only;
// their results merge. A shared prefix is read once per level instead of once per request.
//
//   shared-prefix decode:  level 0: one request of batch_size rows over the prefix   (qo_indptr {0, B}, not causal)
//                          level 1: batch_size requests of one row over their own pages
//   shared-prefix prefill: the same with longer rows, causal in the last level only
#pragma once
#include <fulmen/ops/attention.h>
#include <fulmen/ops/merge_state.h>

#include <span>

namespace fulmen::attention {

// Each level brings its own out and lse, of the same shape and base; the result is left in the first level's.
// Give f32 outs to round once, at the end.
void cascade(std::span<const AttentionArgs> levels, const Context& context = {});

}  // namespace fulmen::attention
