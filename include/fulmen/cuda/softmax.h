// SPDX-License-Identifier: Apache-2.0
// What the softmax kernel and the code that launches it share; fulmen/ops/softmax.h says what it computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::softmax {

using Key = TokenKey;
struct Params {
  TokenMatrix input, out;  // out: f32
  RowFloats temperature;
  StatusOutput status;
};

}  // namespace fulmen::cuda::softmax
