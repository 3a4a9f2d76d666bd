// SPDX-License-Identifier: Apache-2.0
// From dtypes to C++ types in kernels.
#pragma once
#include <fulmen/core/dtype.h>

namespace fulmen::cuda {

// The C++ type behind a dtype.
template <DType>
struct TypeOf;
template <>
struct TypeOf<DType::kF32> {
  using type = float;
};
template <>
struct TypeOf<DType::kF16> {
  using type = f16;
};
template <>
struct TypeOf<DType::kBF16> {
  using type = bf16;
};
template <>
struct TypeOf<DType::kE4M3> {
  using type = e4m3;
};
template <>
struct TypeOf<DType::kE5M2> {
  using type = e5m2;
};
template <>
struct TypeOf<DType::kI32> {
  using type = int32_t;
};
template <>
struct TypeOf<DType::kI64> {
  using type = int64_t;
};
template <DType T>
using type_of = typename TypeOf<T>::type;

template <class A, class B>
inline constexpr bool is_same = false;
template <class A>
inline constexpr bool is_same<A, A> = true;

}  // namespace fulmen::cuda
