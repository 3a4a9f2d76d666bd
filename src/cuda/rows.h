// SPDX-License-Identifier: Apache-2.0
// Tensors of rows: [num_tokens, num_heads?, n] with any strides, as kernels that keep a row in registers want them.
#pragma once
#include <fulmen/core/tensor_view.h>
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/row_tensor.h>

#include <algorithm>
#include <string>

#include "src/cuda/launch.h"

namespace fulmen::cuda {

struct Rows {
  void* data = nullptr;
  int64_t num_tokens = 0, num_heads = 1, n = 0;
  int64_t token_stride = 0, head_stride = 0;  // elements
  int32_t element_bytes = 1;

  explicit Rows(const TensorView& t)
      : data(t.data),
        num_tokens(t.shape[0]),
        num_heads(t.rank == 3 ? t.shape[1] : 1),
        n(t.shape[t.rank - 1]),
        token_stride(t.strides[0]),
        head_stride(t.rank == 3 ? t.strides[1] : 0),
        element_bytes(size_of(t.dtype)) {}

  int64_t num_rows() const { return num_tokens * num_heads; }
  int32_t max_vec() const {
    const uint64_t size = uint64_t(element_bytes);
    return cuda::max_vec(uint64_t(data) | uint64_t(n) * size | (num_tokens > 1 ? uint64_t(token_stride) * size : 0) |
                             (num_heads > 1 ? uint64_t(head_stride) * size : 0),
                         element_bytes);
  }
  // Whether the rows of all heads of all tokens lie at one distance.
  bool even() const { return num_heads == 1 || num_tokens == 1 || token_stride == num_heads * head_stride; }
  void flatten() {
    if (num_heads == 1) return;
    num_tokens *= num_heads, num_heads = 1, token_stride = head_stride;
  }
  operator RowTensor() const { return {data, token_stride, head_stride}; }
  RowCount count() const { return {num_rows(), int32_t(num_heads), int32_t(n)}; }
};

// Flattens all of them if each can be, so that kernels need no division.
template <class... R>
void flatten_together(R&... rows) {
  if ((rows.even() && ...)) (rows.flatten(), ...);
}

// The vector that all of them bear, at most 16 bytes of the first.
template <class... R>
int32_t vec_for(const Rows& first, const R&... more) {
  return std::min({16 / first.element_bytes, first.max_vec(), more.max_vec()...});
}
// A [n] table beside them.
inline int32_t table_vec(const TensorView& t) { return max_vec(uint64_t(t.data), size_of(t.dtype)); }

inline Shape launch_shape(int64_t num_rows, const RowShape& shape) {
  return {.grid = uint32_t(math::ceil_div(num_rows, shape.rows_per_cta())),
          .num_threads = uint32_t(shape.num_threads())};
}

// Why no shape holds these rows; empty: one does.
inline std::string refuses_rows(const Rows& rows, int32_t vec) {
  const RowShape shape = choose_row_shape(rows.n, vec, rows.num_rows(), 1);
  if (shape.lanes == 0)
    return "rows of " + std::to_string(rows.n) + " elements exceed " +
           std::to_string(int64_t(vec) * kMaxLanes * kMaxVecs) + ", the most at this alignment";
  if (rows.num_rows() / shape.rows_per_cta() >= 0x7fffffff) return "more rows than a grid has CTAs for";
  if (!rows.even() && rows.num_rows() > 0x7fffffff) return "more than 2147483647 rows of unevenly strided heads";
  return {};
}

// Calls f(dtype, n, shape) for what usual models need: hidden sizes and head dims, few rows and many.
template <class F>
void for_common_rows(F f) {
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (int64_t n : {64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384})
      for (int64_t num_rows : {1, 1 << 20}) f(t, n, choose_row_shape(n, 16 / size_of(t), num_rows, 132));
}

}  // namespace fulmen::cuda
