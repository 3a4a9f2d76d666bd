// SPDX-License-Identifier: Apache-2.0
// What the act_and_mul kernel and the code that launches it share; fulmen/ops/act_and_mul.h says what it computes.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_tensor.h>

namespace fulmen::cuda::act_and_mul {

enum class Gate : int32_t { kSilu, kGelu, kGeluTanh };  // fulmen::Activation's values
FULMEN_FN constexpr const char* name_of(Gate g) {
  constexpr const char* kNames[] = {"silu", "gelu", "gelu_tanh"};
  return uint32_t(g) < 3 ? kNames[int32_t(g)] : "?";
}

struct Key {
  DType x = DType::kF32;
  Gate gate = Gate::kSilu;
  int32_t vec = 1;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("gate", k.gate), f("vec", k.vec);
  }
};

inline constexpr int32_t kThreads = 512, kVecsPerThread = 1;
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }
FULMEN_FN constexpr int32_t vecs_per_cta() { return kThreads * kVecsPerThread; }

struct Params {
  RowTensor x, out;
  RowCount rows;     // of out; a row of x is twice as long
  int64_t num_vecs;  // over all rows
};

}  // namespace fulmen::cuda::act_and_mul
