// SPDX-License-Identifier: Apache-2.0
// per_tensor_quant_fp8: to FP8 with one scale for the whole tensor.
//   out = fp8(input / scale), nearest even, saturating;   dynamic: scale = max|input| / largest FP8, and at least 2^-96
// NaN stays NaN in out and does not enter the maximum.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct PerTensorQuantFp8Args {
  TensorView input;      // [num_tokens, num_heads?, hidden_size] f32, f16, bf16
  TensorView out;        // like input, e4m3 or e5m2, written
  TensorView scale;      // [1] f32: read, positive; written when dynamic
  bool dynamic = false;  // take the scale from the input
};

inline constexpr OpSchema kPerTensorQuantFp8Schema{
    "per_tensor_quant_fp8",
    {
        {"input", "num_tokens num_heads? hidden_size", kFloats, Access::kRead, Presence::kRequired, "values"},
        {"out", "num_tokens num_heads? hidden_size", kFp8, Access::kWrite, Presence::kRequired, "quantized values"},
        {"scale", "1", kF32, Access::kReadWrite, Presence::kRequired, "value of a 1 in out; written when dynamic"},
    }};

struct PerTensorQuantFp8Dims {
  int64_t num_tokens, num_heads, hidden_size;
};

PerTensorQuantFp8Dims check(const PerTensorQuantFp8Args& args);  // throws Error{kInvalidArgument}
void per_tensor_quant_fp8(const PerTensorQuantFp8Args& args, const Context& context = {});

inline Cost cost(const PerTensorQuantFp8Args& args) {
  const double n = double(args.input.num_elements());
  return {.bytes = n * size_of(args.input.dtype) * (args.dynamic ? 2 : 1) + n, .flops = n, .bytes_written = n};
}

}  // namespace fulmen
