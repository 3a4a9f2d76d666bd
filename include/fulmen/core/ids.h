// SPDX-License-Identifier: Apache-2.0
// A vector of indices of either width, read (or written) as int64. For tables that are walked once per call, not per
// element.
#pragma once
#include <fulmen/core/tensor_view.h>

namespace fulmen {

class Ids {
 public:
  explicit Ids(const TensorView& t) : data_(t.data), wide_(t.dtype == DType::kI64) {}
  int64_t operator[](int64_t i) const {
    return wide_ ? static_cast<const int64_t*>(data_)[i] : int64_t(static_cast<const int32_t*>(data_)[i]);
  }
  void set(int64_t i, int64_t value) const {
    if (wide_)
      static_cast<int64_t*>(data_)[i] = value;
    else
      static_cast<int32_t*>(data_)[i] = int32_t(value);
  }

 private:
  void* data_;
  bool wide_;
};

}  // namespace fulmen
