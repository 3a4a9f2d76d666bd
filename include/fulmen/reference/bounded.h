// SPDX-License-Identifier: Apache-2.0
// What a reference returns: the value in double, and how far a correct implementation may be from it. Nobody guesses a
// tolerance: each reference derives its bound from the formula with these pieces (docs/numerics.md).
#pragma once
#include <fulmen/core/tensor_view.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace fulmen::reference {

struct Bounded {
  double value = 0;
  double bound = 0;
};
using Values = std::vector<Bounded>;  // row-major, like a contiguous tensor of the output's shape

inline constexpr double kUnit = 0x1p-24;  // unit roundoff of f32

// Relative error of an f32 sum of n terms against the sum of their magnitudes. n is the worst case; roundings are as
// good as independent, so beyond 64 terms 8 √n holds with a probability of failure below 3e-14 (Higham and Mary 2019).
inline double sum_error(double n) { return kUnit * std::min(n, 8 * std::sqrt(std::max(n, 1.0))); }

// Error of storing a value near `value` as dtype t: half a spacing, at least half of the least subnormal.
inline double rounding(double value, DType t) {
  constexpr double kLeast[] = {0x1p-149, 0x1p-24, 0x1p-133, 0x1p-9, 0x1p-16};
  return t <= DType::kE5M2 ? std::max(std::abs(value) * epsilon_of(t), kLeast[int32_t(t)]) / 2 : 0;
}

inline constexpr double largest_of(DType t) {  // FP8 saturates; the others overflow to infinity
  return t == DType::kE4M3 ? 448 : t == DType::kE5M2 ? 57344 : INFINITY;
}

// Adds the rounding of the output itself, on the far side of the error so far.
inline Bounded rounded_to(Bounded x, DType t) {
  const double value = std::clamp(x.value, -largest_of(t), largest_of(t));
  return {value, x.bound + rounding(std::abs(value) + x.bound, t)};
}

// What an FP8 output is divided by; 1 if it is absent.
inline double scale_or_one(const TensorView& scale) { return scale.defined() ? double(*scale.as<float>()) : 1; }

// Element of a tensor of any float or integer dtype, by flat row-major index, strides honoured.
inline double element(const TensorView& t, int64_t flat) {
  int64_t offset = 0;
  for (int32_t i = t.rank - 1; i >= 0; --i) {
    offset += flat % t.shape[i] * t.strides[i];
    flat /= t.shape[i];
  }
  switch (t.dtype) {
    case DType::kF32: return double(t.as<float>()[offset]);
    case DType::kF16: return double(to_f32(t.as<f16>()[offset]));
    case DType::kBF16: return double(to_f32(t.as<bf16>()[offset]));
    case DType::kE4M3: return double(to_f32(t.as<e4m3>()[offset]));
    case DType::kE5M2: return double(to_f32(t.as<e5m2>()[offset]));
    case DType::kF64: return t.as<double>()[offset];
    case DType::kI8: return double(t.as<int8_t>()[offset]);
    case DType::kU8:
    case DType::kBool: return double(t.as<uint8_t>()[offset]);
    case DType::kI32: return double(t.as<int32_t>()[offset]);
    case DType::kU32: return double(t.as<uint32_t>()[offset]);
    case DType::kI64: return double(t.as<int64_t>()[offset]);
    case DType::kU64: return double(t.as<uint64_t>()[offset]);
  }
  return 0;
}

}  // namespace fulmen::reference
