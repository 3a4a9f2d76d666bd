// SPDX-License-Identifier: Apache-2.0
// Element types: the run-time name (DType), its size and text, and the C++ type behind each name.
#pragma once
#include <fulmen/core/bf16.h>
#include <fulmen/core/f16.h>
#include <fulmen/core/fp8.h>

namespace fulmen {

enum class DType : uint8_t { kF32, kF16, kBF16, kE4M3, kE5M2, kF64, kI8, kU8, kI32, kU32, kI64, kU64, kBool };
inline constexpr int32_t kNumDTypes = 13;

FULMEN_FN constexpr int32_t size_of(DType t) {
  switch (t) {
    case DType::kE4M3:
    case DType::kE5M2:
    case DType::kI8:
    case DType::kU8:
    case DType::kBool: return 1;
    case DType::kF16:
    case DType::kBF16: return 2;
    case DType::kF32:
    case DType::kI32:
    case DType::kU32: return 4;
    case DType::kF64:
    case DType::kI64:
    case DType::kU64: return 8;
  }
  return 0;
}

FULMEN_FN constexpr const char* name_of(DType t) {
  switch (t) {
    case DType::kF32: return "float32";
    case DType::kF16: return "float16";
    case DType::kBF16: return "bfloat16";
    case DType::kE4M3: return "float8_e4m3fn";
    case DType::kE5M2: return "float8_e5m2";
    case DType::kF64: return "float64";
    case DType::kI8: return "int8";
    case DType::kU8: return "uint8";
    case DType::kI32: return "int32";
    case DType::kU32: return "uint32";
    case DType::kI64: return "int64";
    case DType::kU64: return "uint64";
    case DType::kBool: return "bool";
  }
  return "?";
}

// Distance from 1 to the next number above: rounding to nearest errs by at most half of it, relatively.
FULMEN_FN constexpr double epsilon_of(DType t) {
  switch (t) {
    case DType::kF32: return 0x1p-23;
    case DType::kF16: return 0x1p-10;
    case DType::kBF16: return 0x1p-7;
    case DType::kE4M3: return 0x1p-3;
    case DType::kE5M2: return 0x1p-2;
    case DType::kF64: return 0x1p-52;
    default: return 0;
  }
}

FULMEN_FN constexpr float to_f32(float x) { return x; }

// from_f32<T>: rounds to nearest even; FP8 saturates.
template <class T>
FULMEN_FN constexpr T from_f32(float x);
template <>
FULMEN_FN constexpr float from_f32<float>(float x) {
  return x;
}
template <>
FULMEN_FN constexpr f16 from_f32<f16>(float x) {
  return to_f16(x);
}
template <>
FULMEN_FN constexpr bf16 from_f32<bf16>(float x) {
  return to_bf16(x);
}
template <>
FULMEN_FN constexpr e4m3 from_f32<e4m3>(float x) {
  return to_e4m3(x);
}
template <>
FULMEN_FN constexpr e5m2 from_f32<e5m2>(float x) {
  return to_e5m2(x);
}

// dtype_of<T>: the name of a C++ type.
template <class T>
inline constexpr DType dtype_of = DType::kF32;
template <>
inline constexpr DType dtype_of<f16> = DType::kF16;
template <>
inline constexpr DType dtype_of<bf16> = DType::kBF16;
template <>
inline constexpr DType dtype_of<e4m3> = DType::kE4M3;
template <>
inline constexpr DType dtype_of<e5m2> = DType::kE5M2;
template <>
inline constexpr DType dtype_of<double> = DType::kF64;
template <>
inline constexpr DType dtype_of<int8_t> = DType::kI8;
template <>
inline constexpr DType dtype_of<uint8_t> = DType::kU8;
template <>
inline constexpr DType dtype_of<int32_t> = DType::kI32;
template <>
inline constexpr DType dtype_of<uint32_t> = DType::kU32;
template <>
inline constexpr DType dtype_of<int64_t> = DType::kI64;
template <>
inline constexpr DType dtype_of<uint64_t> = DType::kU64;
template <>
inline constexpr DType dtype_of<bool> = DType::kBool;

}  // namespace fulmen
