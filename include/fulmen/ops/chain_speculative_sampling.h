// SPDX-License-Identifier: Apache-2.0
// chain_speculative_sampling: verifies a chain of drafted tokens so that what comes out is distributed as the target
// model's own samples (Leviathan et al. 2023, Chen et al. 2023).
//   position i, token t: accepted if u_i draft[i][t] < target[i][t]
//   at the first refusal, one token from relu(target[i] - draft[i]); if all are accepted, one from target[n]
//   out = accepted tokens, that token, then -1
// Position i takes the Philox block at offset + i (sample.h): its first 53 bits are u_i, its last draw the token. A
// call therefore uses num_draft_tokens + 1 offsets.
#pragma once
#include <fulmen/ops/sample.h>

namespace fulmen {

struct ChainSpeculativeSamplingArgs {
  TensorView draft_probs;      // [batch_size, num_draft_tokens, vocab_size] f32
  TensorView draft_token_ids;  // [batch_size, num_draft_tokens] i32, i64
  TensorView target_probs;     // [batch_size, num_draft_tokens + 1, vocab_size] f32
  TensorView out;              // [batch_size, num_draft_tokens + 1] i32, i64, written
  TensorView accepted_num;     // [batch_size] i32; optional, added to: drafted tokens that pass their own test
  TensorView emitted_num;      // [batch_size] i32; optional, added to: drafted tokens in out
  TensorView status;           // [batch_size] i32, RowStatus; optional, written
  RandomSource random;         // position i uses offset + i
};

inline constexpr OpSchema kChainSpeculativeSamplingSchema{
    "chain_speculative_sampling",
    {
        {"draft_probs", "batch_size num_draft_tokens vocab_size", kF32, Access::kRead, Presence::kRequired,
         "what the draft model drew from"},
        {"draft_token_ids", "batch_size num_draft_tokens", kIds, Access::kRead, Presence::kRequired, "what it drew"},
        {"target_probs", "batch_size num_draft_tokens+1 vocab_size", kF32, Access::kRead, Presence::kRequired,
         "what the target model would draw from"},
        {"out", "batch_size num_draft_tokens+1", kIds, Access::kWrite, Presence::kRequired, "tokens, then -1"},
        {"accepted_num", "batch_size", kI32, Access::kReadWrite, Presence::kOptional, "added to"},
        {"emitted_num", "batch_size", kI32, Access::kReadWrite, Presence::kOptional, "added to"},
        {"status", "batch_size", kI32, Access::kWrite, Presence::kOptional, "RowStatus per row"},
        {"seed_arr", "num_seeds", kSeeds, Access::kRead, Presence::kOptional, "one per row, or one"},
        {"offset_arr", "num_offsets", kSeeds, Access::kRead, Presence::kOptional, "one per row, or one"},
    }};

struct ChainSpeculativeSamplingDims {
  int64_t batch_size, num_draft_tokens, vocab_size;
};

ChainSpeculativeSamplingDims check(const ChainSpeculativeSamplingArgs& args);  // throws Error{kInvalidArgument}
void chain_speculative_sampling(const ChainSpeculativeSamplingArgs& args, const Context& context = {});

// Acceptance reads single numbers; one row of each kind is read for the residual.
inline Cost cost(const ChainSpeculativeSamplingArgs& args) {
  const double n = double(args.out.shape[0]) * double(args.target_probs.shape[2]);
  return {.bytes = 8 * n, .flops = 2 * n};
}

}  // namespace fulmen
