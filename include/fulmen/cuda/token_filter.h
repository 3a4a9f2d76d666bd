// SPDX-License-Identifier: Apache-2.0
// What the token_filter kernel and the code that launches it share; fulmen/ops/token_filter.h says what it computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::token_filter {

using Key = TokenKey;
// Rows that are read again as logits need more registers than two CTAs have.
FULMEN_FN constexpr int32_t min_ctas(const Key& k) {
  return k.logits && !k.resident ? 1 : fulmen::cuda::min_ctas<0>(k);
}
struct Params {
  TokenMatrix input, out;
  TokenFilterNumbers filter;
  StatusOutput status;
};

}  // namespace fulmen::cuda::token_filter
