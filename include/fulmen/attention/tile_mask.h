// SPDX-License-Identifier: Apache-2.0
// Which (query tile, kv tile) pairs need work: decided in one place for the planner, the CPU and the CUDA kernels.
//
//            kv tiles →                    S skip: nothing visible
//   query  | D  D  M  S  S                 D dense: everything visible, no question per element
//   tiles  | D  D  D  M  S   (causal)      M mixed: ask per element
#pragma once
#include <fulmen/attention/variant.h>

namespace fulmen::attention {

enum class TileMask : uint8_t { kSkip, kDense, kMixed };

// first and last: the first and last query row of the tile (same request).
template <class V>
FULMEN_FN TileMask classify(const V& variant, Row first, Row last, KvRange tile) {
  const KvRange a = variant.visible(first), z = variant.visible(last);  // bounds do not decrease from a to z
  if (tile.end <= a.begin || tile.begin >= z.end) return TileMask::kSkip;
  if (!variant.has_mask() && tile.begin >= z.begin && tile.end <= a.end) return TileMask::kDense;
  return TileMask::kMixed;
}

}  // namespace fulmen::attention
