// SPDX-License-Identifier: Apache-2.0
// per_tensor_quant_fp8 in double.
// Bound: a scale is one f32 division, 1 unit; a value is multiplied by its rounded reciprocal, 4 units with the scale's
// own error; then the rounding to FP8.
#pragma once
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/reference/quant_fp8.h>

namespace fulmen::reference {

// Call it before the op when the scale is given.
inline QuantFp8 per_tensor_quant_fp8(const PerTensorQuantFp8Args& a) {
  const int64_t n = a.input.num_elements();
  const double scale = a.dynamic ? scale_of(a.input, 0, n, a.out.dtype, 0) : double(*a.scale.as<float>());
  QuantFp8 r{Values(size_t(n)), {{scale, a.dynamic ? scale * kUnit : 0}}};
  for (int64_t i = 0; i < n; ++i) r.out[size_t(i)] = quantized(element(a.input, i), scale, a.out.dtype);
  return r;
}

}  // namespace fulmen::reference
