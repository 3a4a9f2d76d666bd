// SPDX-License-Identifier: Apache-2.0
// token_filter: keeps the likeliest tokens of each row and removes the others.
//   probs  → out = kept ? p / Σ kept p : 0                (top_k_renorm_probs, top_p_renorm_probs)
//   logits → out = kept ? x : -inf                        (top_k_mask_logits)
// One order for every filter: value descending, then index ascending. Each filter keeps a prefix of that order, so any
// combination of filters does too:
//   top_k  the first k
//   top_p  the shortest prefix, of one token or more, with that share of the row's mass (kTopKFirst: of top_k's)
//   min_p  tokens of at least min_p times the largest probability; the mass that top_p speaks of is taken before it
// Probabilities need not sum to 1; those that are 0 or negative are never kept. Masses of logits are softmax's.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

enum class TokenValues : int32_t { kProbs, kLogits };
enum class FilterOrder : int32_t {
  kTopKFirst,  // top_p is a share of what top_k left
  kJoint,      // top_p is a share of the whole row
};

// What became of a row. Whatever it says, the row's token is in range and the other rows do not notice.
enum class RowStatus : int32_t {
  kOk = 0,
  kNan = 1,           // the row holds NaN: token 0; tensors of the row become NaN
  kEmpty = 2,         // no token has positive probability (all 0, negative or -inf): token 0
  kInfinite = 3,      // the row holds +inf: those tokens share all the mass equally
  kBadParameter = 4,  // top_k < 1, top_p or min_p not in 0..1, temperature negative or not finite: as if top_k were 1;
                      // or a row or token index that is out of range: token 0
};

struct TokenFilter {
  static constexpr int64_t kAll = INT64_MAX;
  int64_t top_k = kAll;  // >= 1; more than vocab_size keeps all
  float top_p = 1;       // 0..1; 0 keeps the first token, 1 keeps all
  float min_p = 0;       // 0..1
  TensorView top_k_arr;  // [batch_size] i32, i64: one per row, instead of top_k
  TensorView top_p_arr;  // [batch_size] f32, instead of top_p
  TensorView min_p_arr;  // [batch_size] f32, instead of min_p
  FilterOrder order = FilterOrder::kTopKFirst;
  bool keep_ties = false;  // true: tokens that equal the last one kept are kept too
};

struct TokenFilterArgs {
  TensorView input;                          // [batch_size, vocab_size] f32, f16, bf16
  TensorView out;                            // like input, written; may be input itself
  TensorView status;                         // [batch_size] i32, RowStatus; optional, written
  TokenFilter filter;                        // its arrays are per row
  TokenValues values = TokenValues::kProbs;  // or kLogits: what the input holds
};

inline constexpr OpSchema kTokenFilterSchema{
    "token_filter",
    {
        {"input", "batch_size vocab_size", kFloats, Access::kRead, Presence::kRequired, "probabilities or logits"},
        {"out", "batch_size vocab_size", kFloats, Access::kWrite, Presence::kRequired, "input's dtype; may be input",
         "input"},
        {"status", "batch_size", kI32, Access::kWrite, Presence::kOptional, "RowStatus per row"},
        {"top_k_arr", "batch_size", kIds, Access::kRead, Presence::kOptional, "instead of the number top_k"},
        {"top_p_arr", "batch_size", kF32, Access::kRead, Presence::kOptional, "instead of the number top_p"},
        {"min_p_arr", "batch_size", kF32, Access::kRead, Presence::kOptional, "instead of the number min_p"},
    }};

struct TokenFilterDims {
  int64_t batch_size, vocab_size;
};

TokenFilterDims check(const TokenFilterArgs& args);  // throws Error{kInvalidArgument}
void token_filter(const TokenFilterArgs& args, const Context& context = {});

inline Cost cost(const TokenFilterArgs& args) {
  const double n = double(args.input.num_elements());
  return {.bytes = n * (size_of(args.input.dtype) + size_of(args.out.dtype)), .flops = 2 * n};
}

}  // namespace fulmen
