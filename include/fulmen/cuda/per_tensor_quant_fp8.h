// SPDX-License-Identifier: Apache-2.0
// What the per_tensor_quant_fp8 kernels and the code that launches them share; fulmen/ops/per_tensor_quant_fp8.h says
// what they compute. With a dynamic scale three kernels follow each other: the largest magnitude (of all CTAs, by
// atomic maximum over zeroed bits of the scale), the scale from it, the quantization.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_tensor.h>

namespace fulmen::cuda::per_tensor_quant_fp8 {

enum class Step : int32_t { kLargest, kScale, kQuantize };
FULMEN_FN constexpr const char* name_of(Step s) {
  constexpr const char* kNames[] = {"largest", "scale", "quantize"};
  return uint32_t(s) < 3 ? kNames[int32_t(s)] : "?";
}

struct Key {
  DType x = DType::kF32, out = DType::kE4M3;
  Step step = Step::kQuantize;
  int32_t vec = 1;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("out", k.out), f("step", k.step), f("vec", k.vec);
  }
};

inline constexpr int32_t kThreads = 256;
FULMEN_FN constexpr int32_t vecs_per_thread(Step s) { return s == Step::kLargest ? 4 : 1; }
FULMEN_FN constexpr int32_t num_threads(const Key& k) { return k.step == Step::kScale ? 32 : kThreads; }
FULMEN_FN constexpr int32_t vecs_per_cta(Step s) { return kThreads * vecs_per_thread(s); }

struct Params {
  RowTensor x, out;
  float* scale;
  RowCount rows;
  int64_t num_vecs;  // over all rows
};

}  // namespace fulmen::cuda::per_tensor_quant_fp8
