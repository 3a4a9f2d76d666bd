// SPDX-License-Identifier: Apache-2.0
// What the sample kernel and the code that launches it share; fulmen/ops/sample.h says what it computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::sample {

using Key = TokenKey;
struct Params {
  TokenMatrix input;
  int64_t num_rows;  // of the input
  RowIds indices;    // none: the output's row
  TokenFilterNumbers filter;
  TokenRandom random;
  RowFloats temperature;
  TokenOutput out;
  StatusOutput status;
  uint8_t* valid;  // null: nobody asks
  int64_t valid_stride;
};

}  // namespace fulmen::cuda::sample
