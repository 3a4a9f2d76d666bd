// SPDX-License-Identifier: Apache-2.0
// rmsnorm: root-mean-square normalisation of each row (Zhang and Sennrich 2019).
//   out = input / sqrt(mean(input²) + eps) * (weight_bias + weight)
// weight_bias 1 gives Gemma's form. Computes in f32. A row is [hidden_size], of a token or of a token's head.
// An FP8 out is divided by out_scale first and saturates (FlashInfer's rmsnorm_quant).
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct RmsNormArgs {
  TensorView input;       // [num_tokens, num_heads?, hidden_size] f32, f16, bf16
  TensorView weight;      // [hidden_size] input's dtype or f32
  TensorView out;         // like input, written; may be input itself. input's dtype, e4m3 or e5m2
  TensorView out_scale;   // [1] f32, optional, only with an FP8 out; absent: 1
  float eps = 1e-6f;      // > 0
  float weight_bias = 0;  // 0, or 1 for Gemma
};

inline constexpr OpSchema kRmsNormSchema{
    "rmsnorm",
    {
        {"input", "num_tokens num_heads? hidden_size", kFloats, Access::kRead, Presence::kRequired,
         "rows to normalise"},
        {"weight", "hidden_size", kFloats, Access::kRead, Presence::kRequired, "input's dtype or float32"},
        {"out", "num_tokens num_heads? hidden_size", kFloats | kFp8, Access::kWrite, Presence::kRequired,
         "input's dtype or FP8; may be input itself", "input"},
        {"out_scale", "1", kF32, Access::kRead, Presence::kOptional, "divides an FP8 out"},
    }};

struct RmsNormDims {
  int64_t num_tokens, num_heads, hidden_size;
};

RmsNormDims check(const RmsNormArgs& args);  // throws Error{kInvalidArgument}
void rmsnorm(const RmsNormArgs& args, const Context& context = {});

// What the op must move and compute: the floor that benchmarks and planners use.
inline Cost cost(const RmsNormArgs& args) {
  const double n = double(args.input.num_elements());
  const double written = n * size_of(args.out.dtype);
  return {.bytes = n * size_of(args.input.dtype) + written, .flops = 4 * n, .bytes_written = written};
}

}  // namespace fulmen
