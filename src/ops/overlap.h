// SPDX-License-Identifier: Apache-2.0
// Whether tensors of one call share memory. A call may write through one view of a buffer and read through another (the
// halves of a cache, a slice of a fused projection): what counts are elements, not the range that they lie in.
#pragma once
#include <fulmen/core/tensor_view.h>

namespace fulmen {

// Whether a byte of a's elements is one of b's. Exact where strides nest, as those of views of one buffer do; true
// where the answer would take too long. Both have elements and strides of 0 or more.
bool shares_elements(const TensorView& a, const TensorView& b);

// Whether each element of `out` that has a twin in `in`, the element of the same indices, lies on it.
bool lies_on(const TensorView& out, const TensorView& in);

}  // namespace fulmen
