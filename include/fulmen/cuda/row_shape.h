// SPDX-License-Identifier: Apache-2.0
// How the threads of a CTA share rows: what kernels that keep a row in registers (norms, softmax, quantization) have in
// common with the host code that launches them.
//
//   one row:   lane 0 | lane 1 | … | lane L-1 | lane 0 | …      vecs steps of L lanes, each lane a vector of vec
//   elements
//
// L <= 32: a warp holds 32/L rows and reduces by shuffles; L > 32: a CTA holds one row and reduces through shared
// memory.
#pragma once
#include <fulmen/core/math.h>

namespace fulmen::cuda {

struct RowShape {
  int32_t vec = 1;     // elements per load: 16 bytes where pointers, strides and the row's length allow
  int32_t vecs = 1;    // loads per lane
  int32_t lanes = 32;  // threads per row, a power of two

  FULMEN_FN constexpr bool operator==(const RowShape& o) const {
    return vec == o.vec && vecs == o.vecs && lanes == o.lanes;
  }
  FULMEN_FN constexpr int32_t num_threads() const { return lanes > 128 ? lanes : 128; }
  FULMEN_FN constexpr int32_t rows_per_cta() const { return lanes > 32 ? 1 : num_threads() / lanes; }
  FULMEN_FN constexpr int32_t per_lane() const { return vec * vecs; }
  FULMEN_FN constexpr int64_t capacity() const { return int64_t(vec) * vecs * lanes; }
};

inline constexpr int32_t kMaxLanes = 1024, kMaxVecs = 8;

// The most elements of `element_bytes` that one access may move, where `bits` or-s together all that their addresses
// are sums of. 16-byte alignment bears any number: wider vectors go in pieces of 16.
FULMEN_FN constexpr int32_t max_vec(uint64_t bits, int32_t element_bytes) {
  int32_t bytes = 16;
  while (bits % uint64_t(bytes) != 0) bytes /= 2;
  if (bytes == 16) return 16;
  return bytes < element_bytes ? 1 : bytes / element_bytes;
}

// A shape for rows of n elements; lanes 0 where no shape holds them. Many long rows have two loads in flight per lane;
// rows of a head as many as the kernel says, and few rows one, as only their latency counts, but two before 1024 lanes,
// whose sum takes longer.
FULMEN_FN constexpr RowShape choose_row_shape(int64_t n, int32_t vec, int64_t num_rows, int32_t num_sms,
                                              int32_t short_row_loads = 1) {
  const int64_t num_vecs = math::ceil_div(n, vec);
  const bool few = num_rows <= num_sms;
  const int32_t wanted = few ? (num_vecs > kMaxLanes / 2 ? 2 : 1) : num_vecs <= 32 ? short_row_loads : 2;
  int32_t lanes = 8;
  while (lanes < kMaxLanes && int64_t(lanes) * wanted < num_vecs) lanes *= 2;
  if (lanes == 64) lanes = 128;  // 128 is a CTA's least
  if (wanted == 2 && !few && lanes > 128 && 3 * (lanes / 2) >= num_vecs)
    lanes /= 2;  // three loads rather than idle lanes
  int64_t vecs = math::ceil_div(num_vecs, lanes);
  vecs = vecs < 1 ? 1 : vecs;
  for (int32_t step = 1; step <= kMaxVecs; step += step < 4 ? 1 : 2)  // few distinct kernels: 1, 2, 3, 4, 6, 8
    if (vecs <= step) return {vec, step, lanes};
  return {vec, 0, 0};
}

}  // namespace fulmen::cuda
