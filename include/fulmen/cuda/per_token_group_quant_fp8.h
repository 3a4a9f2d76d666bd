// SPDX-License-Identifier: Apache-2.0
// What the per_token_group_quant_fp8 kernel and the code that launches it share; fulmen/ops/per_token_group_quant_fp8.h
// says what it computes. A group is a row of the kernel.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/row_tensor.h>

namespace fulmen::cuda::per_token_group_quant_fp8 {

struct Key {
  DType x = DType::kF32, out = DType::kE4M3;
  int32_t vec = 1, vecs = 1, lanes = 32;

  FULMEN_FN constexpr RowShape shape() const { return {vec, vecs, lanes}; }
  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("out", k.out), f("vec", k.vec), f("vecs", k.vecs), f("lanes", k.lanes);
  }
};

FULMEN_FN constexpr int32_t num_threads(const Key& k) { return k.shape().num_threads(); }

struct Params {
  RowTensor x, out, scales;  // scales: rows of one f32
  RowCount rows;             // num_heads: groups of a token
  float eps;
  bool pow2_scales;
};

}  // namespace fulmen::cuda::per_token_group_quant_fp8
