// SPDX-License-Identifier: Apache-2.0
// What row-wise kernels share: the rows of a [num_tokens, num_heads?, hidden_size] view, the way from a run-time output
// dtype to a C++ type, and the scale of an FP8 output.
#pragma once
#include <fulmen/core/error.h>
#include <fulmen/core/tensor_view.h>
#include <fulmen/cpu/for_dtype.h>

namespace fulmen::cpu {

template <class T>
struct Rows {
  T* data;
  int64_t num_heads, token_stride, head_stride;
  explicit Rows(const TensorView& t)
      : data(t.as<T>()),
        num_heads(t.rank == 3 ? t.shape[1] : 1),
        token_stride(t.strides[0]),
        head_stride(t.rank == 3 ? t.strides[1] : 0) {}
  T* operator[](int64_t row) const { return data + row / num_heads * token_stride + row % num_heads * head_stride; }
};

// Rows that make a chunk worth a thread: about 4096 elements.
inline int64_t rows_per_chunk(int64_t hidden_size) { return 1 + 4096 / hidden_size; }

// f(T()) for input's dtype T, f8 types included: out's dtype is input's or FP8.
template <class T, class F>
void for_out_dtype(DType dtype, F&& f) {
  for_dtype<T, e4m3, e5m2>(dtype, f);
}

// What an output is multiplied by before it is stored.
inline float inverse_scale(std::string_view op, std::string_view name, const TensorView& scale) {
  if (!scale.defined()) return 1;
  const float value = *scale.as<float>();
  require(value > 0, op, name, value, "a positive number");
  return 1 / value;
}

}  // namespace fulmen::cpu
