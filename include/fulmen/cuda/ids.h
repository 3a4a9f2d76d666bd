// SPDX-License-Identifier: Apache-2.0
// A vector of i32 or i64 numbers, told apart at run time: ids are read once per token or row.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::cuda {

struct IdVector {
  const void* data = nullptr;
  bool wide = false;  // i64

  FULMEN_FN int64_t operator[](int64_t i) const {
    return wide ? static_cast<const int64_t*>(data)[i] : int64_t(static_cast<const int32_t*>(data)[i]);
  }
};

}  // namespace fulmen::cuda
