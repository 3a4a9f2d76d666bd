// SPDX-License-Identifier: Apache-2.0
// act_and_mul: the gated activation between the two products of a GLU feed-forward layer (Shazeer 2020).
//   out = act(gate) * up,   input = [gate | up] along the last axis
//   silu(x) = x / (1 + e^-x),   gelu(x) = x Φ(x) = x (1 + erf(x / √2)) / 2,
//   gelu_tanh(x) = x (1 + tanh(√(2/π) (x + 0.044715 x³))) / 2
// Computes in f32. One op for FlashInfer's silu_and_mul, gelu_and_mul and gelu_tanh_and_mul: they differ in one
// function.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

enum class Activation : int32_t { kSilu, kGelu, kGeluTanh };

struct ActAndMulArgs {
  TensorView input;                           // [num_tokens, num_heads?, 2 * hidden_size] f32, f16, bf16
  TensorView out;                             // [num_tokens, num_heads?, hidden_size] input's dtype, written
  Activation activation = Activation::kSilu;  // of the first half of input
};

inline constexpr OpSchema kActAndMulSchema{
    "act_and_mul",
    {
        {"input", "num_tokens num_heads? 2*hidden_size", kFloats, Access::kRead, Presence::kRequired, "gate, then up"},
        {"out", "num_tokens num_heads? hidden_size", kFloats, Access::kWrite, Presence::kRequired,
         "input's dtype; may be the first half of input", "input"},
    }};

struct ActAndMulDims {
  int64_t num_tokens, num_heads, hidden_size;
};

ActAndMulDims check(const ActAndMulArgs& args);  // throws Error{kInvalidArgument}
void act_and_mul(const ActAndMulArgs& args, const Context& context = {});

inline Cost cost(const ActAndMulArgs& args) {
  const double n = double(args.out.num_elements());
  const double written = n * size_of(args.out.dtype);
  return {.bytes = 2 * n * size_of(args.input.dtype) + written, .flops = 4 * n, .bytes_written = written};
}

}  // namespace fulmen
