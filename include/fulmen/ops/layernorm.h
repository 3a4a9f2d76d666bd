// SPDX-License-Identifier: Apache-2.0
// layernorm: normalises each row to mean 0 and variance 1, then scales and shifts (Ba, Kiros and Hinton 2016).
//   out = (input - mean) / sqrt(variance + eps) * gamma + beta,   variance = mean((input - mean)²)
// Computes in f32, the variance from the centred values. An FP8 out is divided by out_scale first and saturates.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct LayerNormArgs {
  TensorView input;      // [num_tokens, num_heads?, hidden_size] f32, f16, bf16
  TensorView gamma;      // [hidden_size] input's dtype or f32
  TensorView beta;       // [hidden_size] gamma's dtype
  TensorView out;        // like input, written; may be input itself. input's dtype, e4m3 or e5m2
  TensorView out_scale;  // [1] f32, optional, only with an FP8 out; absent: 1
  float eps = 1e-6f;     // > 0
};

inline constexpr OpSchema kLayerNormSchema{
    "layernorm",
    {
        {"input", "num_tokens num_heads? hidden_size", kFloats, Access::kRead, Presence::kRequired,
         "rows to normalise"},
        {"gamma", "hidden_size", kFloats, Access::kRead, Presence::kRequired, "input's dtype or float32"},
        {"beta", "hidden_size", kFloats, Access::kRead, Presence::kRequired, "gamma's dtype"},
        {"out", "num_tokens num_heads? hidden_size", kFloats | kFp8, Access::kWrite, Presence::kRequired,
         "input's dtype or FP8; may be input itself", "input"},
        {"out_scale", "1", kF32, Access::kRead, Presence::kOptional, "divides an FP8 out"},
    }};

struct LayerNormDims {
  int64_t num_tokens, num_heads, hidden_size;
};

LayerNormDims check(const LayerNormArgs& args);  // throws Error{kInvalidArgument}
void layernorm(const LayerNormArgs& args, const Context& context = {});

inline Cost cost(const LayerNormArgs& args) {
  const double n = double(args.input.num_elements());
  const double written = n * size_of(args.out.dtype);
  return {.bytes = n * size_of(args.input.dtype) + written, .flops = 8 * n, .bytes_written = written};
}

}  // namespace fulmen
