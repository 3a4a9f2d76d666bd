// SPDX-License-Identifier: Apache-2.0
// rmsnorm: root-mean-square normalisation of each row (Zhang and Sennrich 2019).
//   out = input / sqrt(mean(input²) + eps) * (weight_bias + weight)
// weight_bias 1 gives Gemma's form. Computes in f32. A row is [hidden_size], of a token or of a token's head.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct RmsNormArgs {
  TensorView input;       // [num_tokens, num_heads?, hidden_size] f32, f16, bf16
  TensorView weight;      // [hidden_size] input's dtype or f32
  TensorView out;         // like input, written; may be input itself
  float eps = 1e-6f;      // > 0
  float weight_bias = 0;  // 0, or 1 for Gemma
};

inline constexpr OpSchema kRmsNormSchema{
    "rmsnorm",
    {
        {"input", "num_tokens num_heads? hidden_size", kFloats, Access::kRead, Presence::kRequired,
         "rows to normalise"},
        {"weight", "hidden_size", kFloats, Access::kRead, Presence::kRequired, "input's dtype or float32"},
        {"out", "num_tokens num_heads? hidden_size", kFloats, Access::kWrite, Presence::kRequired,
         "may be input itself"},
    }};

struct RmsNormDims {
  int64_t num_tokens, num_heads, hidden_size;
};

RmsNormDims check(const RmsNormArgs& args);  // throws Error{kInvalidArgument}
void rmsnorm(const RmsNormArgs& args, const Context& context = {});

// What the op must move and compute: the floor that benchmarks and planners use.
inline Cost cost(const RmsNormArgs& args) {
  const double n = double(args.input.num_elements());
  return {.bytes = n * size_of(args.input.dtype) + n * size_of(args.out.dtype), .flops = 4 * n};
}

}  // namespace fulmen
