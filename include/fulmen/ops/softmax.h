// SPDX-License-Identifier: Apache-2.0
// softmax: probabilities of each row of logits.
//   out_i = exp((x_i - max x) / temperature) / Σ_j exp((x_j - max x) / temperature)
// Computes in f32. temperature 0 is its limit: 1 at the first largest logit. Logits more than 87 temperatures below the
// largest become 0. Rows without a distribution: see RowStatus; all -inf gives zeros.
#pragma once
#include <fulmen/ops/token_filter.h>

namespace fulmen {

struct SoftmaxArgs {
  TensorView logits;           // [num_rows, vocab_size] f32, f16, bf16
  TensorView out;              // [num_rows, vocab_size] f32, written; may be logits itself
  TensorView status;           // [num_rows] i32, RowStatus; optional, written
  float temperature = 1;       // >= 0
  TensorView temperature_arr;  // [num_rows] f32, instead of temperature
};

inline constexpr OpSchema kSoftmaxSchema{
    "softmax",
    {
        {"logits", "num_rows vocab_size", kFloats, Access::kRead, Presence::kRequired, "rows to normalise"},
        {"out", "num_rows vocab_size", kF32, Access::kWrite, Presence::kRequired, "may be logits itself", "logits"},
        {"status", "num_rows", kI32, Access::kWrite, Presence::kOptional, "RowStatus per row"},
        {"temperature_arr", "num_rows", kF32, Access::kRead, Presence::kOptional, "instead of temperature"},
    }};

struct SoftmaxDims {
  int64_t num_rows, vocab_size;
};

SoftmaxDims check(const SoftmaxArgs& args);  // throws Error{kInvalidArgument}
void softmax(const SoftmaxArgs& args, const Context& context = {});

inline Cost cost(const SoftmaxArgs& args) {
  const double n = double(args.logits.num_elements());
  return {.bytes = n * size_of(args.logits.dtype) + n * 4, .flops = 4 * n};
}

}  // namespace fulmen
