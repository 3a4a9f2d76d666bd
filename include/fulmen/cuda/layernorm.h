// SPDX-License-Identifier: Apache-2.0
// What the layernorm kernel and the code that launches it share; fulmen/ops/layernorm.h says what it computes.
#pragma once
#include <fulmen/cuda/norm_key.h>

namespace fulmen::cuda::layernorm {

using Key = NormKey;
struct Params {
  RowTensor x, out;
  const void* gamma;
  const void* beta;
  const float* out_scale;  // null: 1
  RowCount rows;
  float eps;
};

}  // namespace fulmen::cuda::layernorm
