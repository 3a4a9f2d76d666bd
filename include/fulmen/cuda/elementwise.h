// SPDX-License-Identifier: Apache-2.0
// What the elementwise kernel and the code that launches it share; fulmen/ops/elementwise.h says what it computes. The
// caller's text is a type User with one function, which src/cuda/elementwise.cc prints behind the key.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_tensor.h>

namespace fulmen::cuda::elementwise {

inline constexpr int32_t kMostInputs = 4, kNumbers = 8;

struct Key {
  DType a = DType::kF32, b = DType::kF32, c = DType::kF32, d = DType::kF32, out = DType::kF32;
  int32_t inputs = 1;
  int32_t vec = 1;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("a", k.a), f("b", k.b), f("c", k.c), f("d", k.d), f("out", k.out), f("inputs", k.inputs), f("vec", k.vec);
  }
};

inline constexpr int32_t kThreads = 256;
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }

struct Params {
  RowTensor in[kMostInputs], out;
  RowCount rows;
  int64_t num_vecs;  // over all rows
  float s[kNumbers];
};

}  // namespace fulmen::cuda::elementwise
