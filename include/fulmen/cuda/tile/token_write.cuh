// SPDX-License-Identifier: Apache-2.0
// Writes a CTA's part of a row.
#pragma once
#include <fulmen/cuda/tile/token_slice.cuh>

namespace fulmen::cuda {

// out[i] = value(x[i], i). Vec: elements that out's alignment bears.
template <int32_t Vec, class Slice, class Out, class Value>
__device__ __forceinline__ void write_row(const Slice& slice, Out* out, const Value& value) {
  slice.for_blocks([&](int32_t b) {
    slice.for_vectors(b, [&](int32_t i, const float(&v)[4]) {
      float y[4];
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) y[j] = value(v[j], i + j);
      if (Vec >= 4 && i + 4 <= slice.n) {
        store_stream<4 * int32_t(sizeof(Out))>(out + i, pack<Out, 4>(y));
      } else {
#pragma unroll
        for (int32_t j = 0; j < 4; ++j)
          if (i + j < slice.n) out[i + j] = narrow<Out>(y[j]);
      }
    });
  });
}

// out[i] = value, short and slow.
template <class Slice, class Out>
__device__ __forceinline__ void fill_row(const Slice& slice, Out* out, float value) {
  slice.for_blocks([&](int32_t b) {
#pragma unroll 1
    for (int32_t k = warp_lane(); k < kTokenBlock; k += 32) {
      const int32_t i = slice.of_row(b) * kTokenBlock + k;
      if (i < slice.n) out[i] = narrow<Out>(value);
    }
  });
}

}  // namespace fulmen::cuda
