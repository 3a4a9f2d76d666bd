// SPDX-License-Identifier: Apache-2.0
// What the fused_add_rmsnorm kernel and the code that launches it share; fulmen/ops/fused_add_rmsnorm.h says what it
// computes.
#pragma once
#include <fulmen/cuda/norm_key.h>

namespace fulmen::cuda::fused_add_rmsnorm {

using Key = NormKey;
struct Params {
  RowTensor x, residual, out;
  const void* weight;
  const float* out_scale;  // null: 1
  RowCount rows;
  float eps, bias;
};

}  // namespace fulmen::cuda::fused_add_rmsnorm
