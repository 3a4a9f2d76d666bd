// SPDX-License-Identifier: Apache-2.0
// What the top_k kernel and the code that launches it share; fulmen/ops/top_k.h says what it computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::top_k {

using Key = TokenKey;
struct Params {
  TokenMatrix input;
  void* values;
  int64_t values_stride;
  TokenOutput indices;
  int32_t k;
  bool sorted, large_index;
};

}  // namespace fulmen::cuda::top_k
