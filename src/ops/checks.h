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

// An optional input of `first`'s dtype and the output that belongs to it, of `first_out`'s.
inline void require_pair(std::string_view op, std::string_view name, const TensorView& t, const TensorView& first,
                         std::string_view out_name, const TensorView& out, const TensorView& first_out) {
  if (t.defined() != out.defined())
    fail(op, t.defined() ? out_name : name,
         "is missing, expected " + std::string(name) + " and " + std::string(out_name) + " or neither");
  if (!t.defined()) return;
  require_same_dtype(op, name, t, first, "q_rope");
  if (out.dtype != first_out.dtype)
    fail(op, out_name, std::string("dtype is ") + name_of(out.dtype) + ", expected " + name_of(first_out.dtype));
}

inline void require_rope_dim(std::string_view op, int64_t rope_dim) {
  require(rope_dim % 2 == 0 && rope_dim <= 1024, op, "rope_dim", rope_dim, "an even number up to 1024");
}

}  // namespace fulmen
