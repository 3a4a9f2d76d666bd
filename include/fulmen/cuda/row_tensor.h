// SPDX-License-Identifier: Apache-2.0
// A [num_tokens, num_heads, n] tensor as kernels take it: rows anywhere in memory, contiguous inside.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::cuda {

struct RowTensor {
  void* data;
  int64_t token_stride, head_stride;  // elements
};

// How many rows, and how a row's number splits. The host flattens evenly strided heads to num_heads 1.
struct RowCount {
  int64_t num_rows;
  int32_t num_heads;
  int32_t n;  // elements of a row

  // The first element of a row. One 32-bit division: the host refuses more rows than that of unevenly strided heads.
  template <class T>
  FULMEN_FN T* row_of(const RowTensor& t, int64_t row) const {
    if (num_heads == 1) return static_cast<T*>(t.data) + row * t.token_stride;
    const uint32_t token = uint32_t(row) / uint32_t(num_heads);
    const uint32_t head = uint32_t(row) - token * uint32_t(num_heads);
    return static_cast<T*>(t.data) + int64_t(token) * t.token_stride + int64_t(head) * t.head_stride;
  }
};

}  // namespace fulmen::cuda
