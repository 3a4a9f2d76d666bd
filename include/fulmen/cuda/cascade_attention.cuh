// SPDX-License-Identifier: Apache-2.0
// See cascade_attention.h. Launched by src/cuda/cascade_attention.cc.
#pragma once
#include <fulmen/cuda/cascade_attention.h>
#include <fulmen/cuda/batch_attention.cuh>

namespace fulmen::cuda::cascade_attention {

using batch_attention::run;

}  // namespace fulmen::cuda::cascade_attention
