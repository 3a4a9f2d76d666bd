// SPDX-License-Identifier: Apache-2.0
// What the references of the FP8 quantizers share.
// Bound: a scale is one f32 division, 1 unit; a value is multiplied by its rounded reciprocal, 4 units with the scale's
// own error; then the rounding to FP8. A power-of-two scale is exact.
#pragma once
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

struct QuantFp8 {
  Values out, scales;
};

inline Bounded quantized(double x, double scale, DType t) {
  if (std::isnan(x)) return {x, 0};
  return rounded_to({x / scale, std::abs(x / scale) * 4 * kUnit}, t);
}

// The largest magnitude of elements begin .. end-1 over the format's largest value; NaN is passed over.
inline double scale_of(const TensorView& x, int64_t begin, int64_t end, DType t, double least_magnitude) {
  double top = least_magnitude;
  for (int64_t i = begin; i < end; ++i)
    if (const double m = std::abs(element(x, i)); m > top) top = m;
  return std::max(top / largest_of(t), 0x1p-96);
}

}  // namespace fulmen::reference
