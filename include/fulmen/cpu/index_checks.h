// SPDX-License-Identifier: Apache-2.0
// Checks of index tensors by value, for tables in host memory: every error names the place, what is there and what was
// expected. They run before anything is written.
#pragma once
#include <fulmen/core/error.h>
#include <fulmen/core/ids.h>

namespace fulmen::cpu {

[[noreturn]] inline void fail_at(std::string_view op, std::string_view name, int64_t index, int64_t got,
                                 std::string_view expected) {
  std::string argument(name);
  argument.append("[").append(std::to_string(index)).append("]");
  fail(op, argument, "is " + std::to_string(got) + ", expected " + std::string(expected));
}

// indptr[0..batch_size]: starts at 0 or above, does not decrease, ends at `limit` or below.
inline void check_indptr(std::string_view op, std::string_view name, const TensorView& indptr, int64_t limit) {
  const Ids ids(indptr);
  int64_t least = 0;
  for (int64_t b = 0; b < indptr.shape[0]; ++b) {
    const int64_t here = ids[b];
    if (here < least || here > limit)
      fail_at(op, name, b, here, std::to_string(least) + " to " + std::to_string(limit));
    least = here;
  }
}

// The request that owns item t: the last b with indptr[b] <= t. t is at least indptr[0].
inline int64_t request_of(const Ids& indptr, int64_t batch_size, int64_t t) {
  int64_t low = 0, high = batch_size;  // indptr[low] <= t < indptr[high], if there is such a high
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (indptr[middle] <= t ? low : high) = middle;
  }
  return low;
}

}  // namespace fulmen::cpu
