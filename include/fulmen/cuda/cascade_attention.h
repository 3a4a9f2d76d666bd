// SPDX-License-Identifier: Apache-2.0
// Launches of a cascade: the kernels of batch_attention, whose results take in what the levels above left, so that
// nothing is left to merge. Kernels of their own, since ordinary attention shall not carry what is for cascades alone.
#pragma once
#include <fulmen/cuda/batch_attention.h>

namespace fulmen::cuda::cascade_attention {

using batch_attention::Key;

struct Above {
  const float *out, *lse;        // [num_levels][rows][num_heads][d_vo], and without the last axis
  int64_t out_level, lse_level;  // from one level to the next
  int64_t num_heads;
  const int32_t* num_levels;  // that were run; null: `most`. Settled with the plan
  int32_t most;
  float to_log2;  // of an lse
};

struct Variant : attention::Standard {
  Above above;
};
using Params = batch_attention::ParamsOf<Variant>;

}  // namespace fulmen::cuda::cascade_attention

namespace fulmen::cuda::batch_attention {
template <>
inline constexpr bool kOfCascade<cascade_attention::Variant> = true;
}
