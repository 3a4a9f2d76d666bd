// SPDX-License-Identifier: Apache-2.0
// fused_add_rmsnorm: the residual connection and the normalisation after it, in one pass over memory.
//   sum = input + residual,   residual = sum,   out = sum / sqrt(mean(sum²) + eps) * (weight_bias + weight)
// The sum is normalised in f32, before it is rounded to residual's dtype. weight_bias 1 gives Gemma's form.
// FlashInfer writes over input: pass input as out. An FP8 out is divided by out_scale first and saturates.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct FusedAddRmsNormArgs {
  TensorView input;       // [num_tokens, num_heads?, hidden_size] f32, f16, bf16
  TensorView residual;    // like input, read and written
  TensorView weight;      // [hidden_size] input's dtype or f32
  TensorView out;         // like input, written; may be input itself. input's dtype, e4m3 or e5m2
  TensorView out_scale;   // [1] f32, optional, only with an FP8 out; absent: 1
  float eps = 1e-6f;      // > 0
  float weight_bias = 0;  // 0, or 1 for Gemma
};

inline constexpr OpSchema kFusedAddRmsNormSchema{
    "fused_add_rmsnorm",
    {
        {"input", "num_tokens num_heads? hidden_size", kFloats, Access::kRead, Presence::kRequired, "rows to add"},
        {"residual", "num_tokens num_heads? hidden_size", kFloats, Access::kReadWrite, Presence::kRequired,
         "input's dtype; becomes the sum"},
        {"weight", "hidden_size", kFloats, Access::kRead, Presence::kRequired, "input's dtype or float32"},
        {"out", "num_tokens num_heads? hidden_size", kFloats | kFp8, Access::kWrite, Presence::kRequired,
         "input's dtype or FP8; may be input itself", "input"},
        {"out_scale", "1", kF32, Access::kRead, Presence::kOptional, "divides an FP8 out"},
    }};

struct FusedAddRmsNormDims {
  int64_t num_tokens, num_heads, hidden_size;
};

FusedAddRmsNormDims check(const FusedAddRmsNormArgs& args);  // throws Error{kInvalidArgument}
void fused_add_rmsnorm(const FusedAddRmsNormArgs& args, const Context& context = {});

inline Cost cost(const FusedAddRmsNormArgs& args) {
  const double n = double(args.input.num_elements());
  const double written = n * size_of(args.out.dtype) + n * size_of(args.residual.dtype);
  return {.bytes = n * 2 * size_of(args.input.dtype) + written, .flops = 5 * n, .bytes_written = written};
}

}  // namespace fulmen
