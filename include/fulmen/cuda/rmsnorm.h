// SPDX-License-Identifier: Apache-2.0
// What the rmsnorm kernel and the code that launches it share; fulmen/ops/rmsnorm.h says what it computes.
#pragma once
#include <fulmen/cuda/norm_key.h>

namespace fulmen::cuda::rmsnorm {

using Key = NormKey;
struct Params {
  RowTensor x, out;
  const void* weight;
  const float* out_scale;  // null: 1
  RowCount rows;
  float eps, bias;
};

}  // namespace fulmen::cuda::rmsnorm
