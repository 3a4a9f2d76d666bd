// SPDX-License-Identifier: Apache-2.0
// sample: draws one token per row from the probabilities, or the softmax of the logits, that a filter leaves.
//   w_i = p_i   or   exp((x_i - max x) / temperature)
//   out = the first i of those kept, in index order, at which Σ_{j <= i} w_j > u Σ w
// Tokens of weight 0 are never drawn. temperature 0 takes the first largest logit.
// u is uniform in [0, 1) with 53 bits, from one Philox block (core/philox.h) keyed by (seed, offset, subsequence):
//   a seed per row        subsequence 0: the token depends on the row, its seed and its offset, not on its slot
//   one seed for all      subsequence = output row, so that rows differ
// The same call draws the same tokens with any number of threads and at every instruction set.
#pragma once
#include <fulmen/ops/token_filter.h>

namespace fulmen {

// A call of sample uses the block at `offset`; one that follows with the same seed must use another offset.
struct RandomSource {
  uint64_t seed = 0, offset = 0;
  TensorView seed_arr;    // [batch_size] i64, u64: one per row; or [1]: the same as the number seed
  TensorView offset_arr;  // [batch_size] or [1] i64, u64, instead of the number offset
};

struct SampleArgs {
  TensorView input;     // [num_rows, vocab_size] f32, f16, bf16
  TensorView indices;   // [batch_size] i32, i64: input row of each output row; optional: batch_size = num_rows
  TensorView out;       // [batch_size] i32, i64, written
  TensorView valid;     // [batch_size] bool, u8; optional, written: status is kOk or kInfinite
  TensorView status;    // [batch_size] i32, RowStatus; optional, written
  TokenFilter filter;   // its arrays are per output row
  RandomSource random;  // seed 0, offset 0 by default
  TokenValues values = TokenValues::kProbs;  // or kLogits: what the input holds
  float temperature = 1;                     // logits only
  TensorView temperature_arr;                // [batch_size] f32, instead of temperature
};

inline constexpr DTypes kSeeds = of(DType::kI64, DType::kU64);

inline constexpr OpSchema kSampleSchema{
    "sample",
    {
        {"input", "num_rows vocab_size", kFloats, Access::kRead, Presence::kRequired, "probabilities or logits"},
        {"indices", "batch_size", kIds, Access::kRead, Presence::kOptional, "input row of each output row"},
        {"out", "batch_size", kIds, Access::kWrite, Presence::kRequired, "tokens"},
        {"valid", "batch_size", kBytes, Access::kWrite, Presence::kOptional, "1 where the row had something to draw"},
        {"status", "batch_size", kI32, Access::kWrite, Presence::kOptional, "RowStatus per row"},
        {"top_k_arr", "batch_size", kIds, Access::kRead, Presence::kOptional, "instead of the number top_k"},
        {"top_p_arr", "batch_size", kF32, Access::kRead, Presence::kOptional, "instead of the number top_p"},
        {"min_p_arr", "batch_size", kF32, Access::kRead, Presence::kOptional, "instead of the number min_p"},
        {"seed_arr", "num_seeds", kSeeds, Access::kRead, Presence::kOptional, "one per row, or one"},
        {"offset_arr", "num_offsets", kSeeds, Access::kRead, Presence::kOptional, "one per row, or one"},
        {"temperature_arr", "batch_size", kF32, Access::kRead, Presence::kOptional, "instead of temperature"},
    }};

struct SampleDims {
  int64_t num_rows, batch_size, vocab_size;
};

// Fails unless t is absent or has batch_size elements or one.
void check_one_or_per_row(std::string_view op, std::string_view name, const TensorView& t, int64_t batch_size);

SampleDims check(const SampleArgs& args);  // throws Error{kInvalidArgument}
void sample(const SampleArgs& args, const Context& context = {});

inline Cost cost(const SampleArgs& args) {
  const double n = double(args.out.num_elements()) * double(args.input.shape[1]);
  return {.bytes = n * size_of(args.input.dtype), .flops = n};
}

}  // namespace fulmen
