// SPDX-License-Identifier: Apache-2.0
// Cross-checks that several ops share: what a schema row cannot say about two tensors.
#pragma once
#include <fulmen/core/error.h>
#include <fulmen/core/schema.h>

namespace fulmen {

inline void require_same_dtype(std::string_view op, std::string_view name, const TensorView& t, const TensorView& other,
                               std::string_view others_name) {
  if (t.dtype != other.dtype) fail(op, name, "dtype differs from " + std::string(others_name) + "'s");
}

// A norm's weights: input's dtype or f32.
inline void require_weight_dtype(std::string_view op, std::string_view name, const TensorView& t,
                                 const TensorView& input) {
  if (t.dtype != input.dtype && t.dtype != DType::kF32)
    fail(op, name, std::string("dtype is ") + name_of(t.dtype) + ", expected input's or float32");
}

// An output that may be FP8, and the scale that belongs to it.
inline void require_out(std::string_view op, const TensorView& out, const TensorView& out_scale,
                        const TensorView& input) {
  if (kFp8.has(out.dtype)) return;
  require_same_dtype(op, "out", out, input, "input");
  if (out_scale.defined()) fail(op, "out_scale", "is given, expected none: out is not FP8");
}

}  // namespace fulmen
