// SPDX-License-Identifier: Apache-2.0
#include "src/ops/overlap.h"

#include <algorithm>
#include <utility>

namespace fulmen {
namespace {

// A tensor as runs of bytes: one starts wherever each axis, the widest stride first, is at one of its places.
struct Runs {
  int32_t rank = 0;
  int64_t stride[TensorView::kMaxRank], size[TensorView::kMaxRank];
  int64_t span[TensorView::kMaxRank + 1];  // bytes from the first to the end of the last, of axes i and later

  explicit Runs(const TensorView& t) {
    int64_t run = size_of(t.dtype);
    for (int32_t i = 0; i < t.rank; ++i) {
      if (t.shape[i] == 1 || t.strides[i] == 0) continue;
      const int64_t wide = t.strides[i] * size_of(t.dtype);
      int32_t at = rank++;
      for (; at > 0 && stride[at - 1] < wide; --at) stride[at] = stride[at - 1], size[at] = size[at - 1];
      stride[at] = wide, size[at] = t.shape[i];
    }
    for (; rank > 0 && stride[rank - 1] <= run; --rank) run += (size[rank - 1] - 1) * stride[rank - 1];
    span[rank] = run;
    for (int32_t i = rank; i-- > 0;) span[i] = span[i + 1] + (size[i] - 1) * stride[i];
  }
};

int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b > 0); }

struct Search {
  const Runs &a, &b;
  int32_t steps_left = 4096;

  // Of a's axes from i on and b's from j on, b starting `apart` bytes behind a.
  bool meet(int32_t i, int32_t j, int64_t apart) {
    if (apart >= a.span[i] || -apart >= b.span[j]) return false;
    if ((i == a.rank && j == b.rank) || --steps_left < 0) return true;
    const int64_t of_a = i < a.rank ? a.stride[i] : 0, of_b = j < b.rank ? b.stride[j] : 0;
    const int64_t step = std::max(of_a, of_b);
    const int32_t next_i = i + (of_a == step), next_j = j + (of_b == step);
    // b's place minus a's on this axis: those that leave the rest within reach.
    const int64_t least = of_a == step ? 1 - a.size[i] : 0, most = of_b == step ? b.size[j] - 1 : 0;
    const int64_t first = std::max(least, ceil_div(1 - b.span[next_j] - apart, step));
    const int64_t last = std::min(most, -ceil_div(1 - a.span[next_i] + apart, step));
    for (int64_t m = first; m <= last; ++m)
      if (meet(next_i, next_j, apart + m * step)) return true;
    return false;
  }
};

}  // namespace

bool shares_elements(const TensorView& a, const TensorView& b) {
  const Runs of_a(a), of_b(b);
  return Search{of_a, of_b}.meet(0, 0,
                                 int64_t(reinterpret_cast<uintptr_t>(b.data) - reinterpret_cast<uintptr_t>(a.data)));
}

bool lies_on(const TensorView& out, const TensorView& in) {
  if (out.data != in.data || out.dtype != in.dtype) return false;
  int32_t i = 0, j = 0;
  while (i < out.rank && j < in.rank) {
    // An axis that one of them lacks has length 1 in the other.
    if (out.rank - i != in.rank - j && (out.rank - i > in.rank - j ? out.shape[i] : in.shape[j]) == 1) {
      out.rank - i > in.rank - j ? ++i : ++j;
      continue;
    }
    if (out.shape[i] > 1 && in.shape[j] > 1 && out.strides[i] != in.strides[j]) return false;
    ++i, ++j;
  }
  return true;
}

}  // namespace fulmen
