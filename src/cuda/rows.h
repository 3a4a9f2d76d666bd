// SPDX-License-Identifier: Apache-2.0
// Tensors of rows: [num_tokens, num_heads?, n] with any strides, as kernels that keep a row in registers want them.
#pragma once
#include <fulmen/core/tensor_view.h>
#include <fulmen/cuda/row_shape.h>

#include <string>

namespace fulmen::cuda {

struct Rows {
  char* data = nullptr;
  int64_t num_tokens = 0, num_heads = 1, n = 0;
  int64_t token_stride = 0, head_stride = 0;  // elements
  int32_t element_bytes = 1;

  int64_t num_rows() const { return num_tokens * num_heads; }
  // Or of everything that a vector's alignment depends on.
  uint64_t alignment() const {
    const uint64_t size = uint64_t(element_bytes);
    return uint64_t(data) | uint64_t(n) * size | (num_tokens > 1 ? uint64_t(token_stride) * size : 0) |
           (num_heads > 1 ? uint64_t(head_stride) * size : 0);
  }
  // Whether head rows follow token rows at one distance.
  bool even() const { return num_heads == 1 || num_tokens == 1 || token_stride == num_heads * head_stride; }
  void flatten() {
    if (num_heads == 1) return;
    num_tokens *= num_heads, num_heads = 1, token_stride = head_stride;
  }
};

inline Rows rows_of(const TensorView& t) {
  Rows r;
  r.data = static_cast<char*>(t.data);
  r.element_bytes = size_of(t.dtype);
  r.n = t.shape[t.rank - 1];
  r.num_tokens = t.shape[0], r.token_stride = t.strides[0];
  if (t.rank == 3) r.num_heads = t.shape[1], r.head_stride = t.strides[1];
  return r;
}

// Flattens all of them if each can be, so that kernels need no division.
template <class... R>
void flatten_together(R&... rows) {
  if ((rows.even() && ...)) (rows.flatten(), ...);
}

inline uint32_t grid_of(int64_t num_rows, const RowShape& shape) {
  const int64_t ctas = math::ceil_div(num_rows, shape.rows_per_cta());
  return uint32_t(ctas < 0x7fffffff ? ctas : 0x7fffffff);
}

// What no shape holds; empty: some does.
inline std::string refuses_rows(const Rows& rows, int32_t vec) {
  if (choose_row_shape(rows.n, vec, rows.num_rows(), 1).lanes == 0)
    return "rows of " + std::to_string(rows.n) + " elements exceed " +
           std::to_string(int64_t(vec) * kMaxLanes * kMaxVecs) + ", the most at this alignment";
  if (!rows.even() && rows.num_rows() > 0x7fffffff) return "more than 2147483647 rows of unevenly strided heads";
  return {};
}

}  // namespace fulmen::cuda
