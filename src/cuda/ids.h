// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/core/tensor_view.h>
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda {

inline IdVector ids_of(const TensorView& t) {
  return t.defined() ? IdVector{t.data, size_of(t.dtype) == 8} : IdVector{};
}

}  // namespace fulmen::cuda
