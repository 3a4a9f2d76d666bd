// SPDX-License-Identifier: Apache-2.0
// What the token_filter kernel and the code that launches it share; fulmen/ops/token_filter.h says what it computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::token_filter {

using Key = TokenKey;
struct Params {
  TokenMatrix input, out;
  TokenFilterNumbers filter;
  StatusOutput status;
};

}  // namespace fulmen::cuda::token_filter
