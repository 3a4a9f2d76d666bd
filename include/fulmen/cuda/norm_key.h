// SPDX-License-Identifier: Apache-2.0
// What the kernels of rmsnorm, fused_add_rmsnorm and layernorm are generated from: they read rows and tables of the
// same kinds.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/row_tensor.h>

namespace fulmen::cuda {

struct NormKey {
  DType x = DType::kF32, weight = DType::kF32, out = DType::kF32;
  int32_t vec = 1, vecs = 1, lanes = 32;

  FULMEN_FN constexpr RowShape shape() const { return {vec, vecs, lanes}; }
  constexpr bool operator==(const NormKey&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("weight", k.weight), f("out", k.out), f("vec", k.vec), f("vecs", k.vecs), f("lanes", k.lanes);
  }
};

FULMEN_FN constexpr int32_t num_threads(const NormKey& k) { return k.shape().num_threads(); }

}  // namespace fulmen::cuda
