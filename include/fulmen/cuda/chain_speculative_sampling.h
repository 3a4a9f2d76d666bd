// SPDX-License-Identifier: Apache-2.0
// What the chain_speculative_sampling kernel and the code that launches it share;
// fulmen/ops/chain_speculative_sampling.h says what it computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::chain_speculative_sampling {

using Key = TokenKey;
struct Params {
  const float* draft;
  const float* target;
  int64_t draft_stride, draft_step, target_stride, target_step;  // elements: per request, per position
  RowIds tokens;                                                 // stride per request
  int64_t token_step;
  TokenOutput out;  // stride per request
  int64_t out_step;
  int32_t* accepted;  // null: nobody asks
  int32_t* emitted;
  int64_t accepted_stride, emitted_stride;
  StatusOutput status;
  TokenRandom random;
  int32_t num_draft, vocab_size;
};

}  // namespace fulmen::cuda::chain_speculative_sampling
