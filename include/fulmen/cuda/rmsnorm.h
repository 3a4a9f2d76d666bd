// SPDX-License-Identifier: Apache-2.0
// What the rmsnorm kernel and the code that launches it share: fulmen/ops/rmsnorm.h says what it computes.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_shape.h>

namespace fulmen::cuda::rmsnorm {

struct Key {
  DType x = DType::kF32, weight = DType::kF32;
  int32_t vec = 1, vecs = 1, lanes = 32;

  FULMEN_FN constexpr RowShape shape() const { return {vec, vecs, lanes}; }
  FULMEN_FN constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("weight", k.weight), f("vec", k.vec), f("vecs", k.vecs), f("lanes", k.lanes);
  }
};

struct Params {
  const void* x;
  const void* weight;
  void* out;
  int64_t num_rows;
  int32_t num_heads;                             // rows of a token; 1 where rows lie at equal distances
  int32_t n;                                     // hidden_size
  int64_t x_token, x_head, out_token, out_head;  // strides in elements
  float eps, bias;
};

FULMEN_FN constexpr int32_t num_threads(Key k) { return k.shape().num_threads(); }

}  // namespace fulmen::cuda::rmsnorm
