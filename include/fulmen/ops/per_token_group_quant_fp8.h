// SPDX-License-Identifier: Apache-2.0
// per_token_group_quant_fp8: to FP8 with one scale per token and group of group_size neighbouring elements.
//   scale = max(max|group|, eps) / largest FP8,   out = fp8(input / scale), nearest even, saturating
// pow2_scales rounds each scale up to a power of two (UE8M0's values, kept as f32). NaN stays NaN in out and does not
// enter the maximum.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

struct PerTokenGroupQuantFp8Args {
  TensorView input;                 // [num_tokens, hidden_size] f32, f16, bf16
  TensorView out;                   // [num_tokens, hidden_size] e4m3 or e5m2, written
  TensorView scales;                // [num_tokens, num_groups] f32, written; [num_groups, num_tokens] if group_major
  int64_t group_size = 128;         // divides hidden_size
  float eps = 1e-10f;               // least maximum, > 0
  bool group_major_scales = false;  // "column-major" scales
  bool pow2_scales = false;
};

inline constexpr OpSchema kPerTokenGroupQuantFp8Schema{
    "per_token_group_quant_fp8",
    {
        {"input", "num_tokens hidden_size", kFloats, Access::kRead, Presence::kRequired, "values"},
        {"out", "num_tokens hidden_size", kFp8, Access::kWrite, Presence::kRequired, "quantized values"},
        {"scales", "* *", kF32, Access::kWrite, Presence::kRequired, "value of a 1 in out, per group"},
    }};

struct PerTokenGroupQuantFp8Dims {
  int64_t num_tokens, hidden_size, num_groups;
};

PerTokenGroupQuantFp8Dims check(const PerTokenGroupQuantFp8Args& args);  // throws Error{kInvalidArgument}
void per_token_group_quant_fp8(const PerTokenGroupQuantFp8Args& args, const Context& context = {});

inline Cost cost(const PerTokenGroupQuantFp8Args& args) {
  const double n = double(args.input.num_elements()), written = n + double(args.scales.num_elements()) * 4;
  return {.bytes = n * size_of(args.input.dtype) + written, .flops = 2 * n, .bytes_written = written};
}

}  // namespace fulmen
