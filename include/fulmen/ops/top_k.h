// SPDX-License-Identifier: Apache-2.0
// top_k: the k largest values of each row and where they are.
// Order: value descending, ties by index. NaN counts as larger than everything, -0 equals 0. The choice among ties is
// always the same; which end of the row wins is an option.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

enum class TieBreak : int32_t { kSmallIndex, kLargeIndex };

struct TopKArgs {
  TensorView input;                            // [num_rows, row_len] f32, f16, bf16
  TensorView values;                           // [num_rows, k] input's dtype, written; k <= row_len
  TensorView indices;                          // [num_rows, k] i32, i64, written
  bool sorted = true;                          // false: in index order
  TieBreak tie_break = TieBreak::kSmallIndex;  // which of equal values is chosen, and comes first when sorted
};

inline constexpr OpSchema kTopKSchema{
    "top_k",
    {
        {"input", "num_rows row_len", kFloats, Access::kRead, Presence::kRequired, "rows to choose from"},
        {"values", "num_rows k", kFloats, Access::kWrite, Presence::kRequired, "input's dtype"},
        {"indices", "num_rows k", kIds, Access::kWrite, Presence::kRequired, "positions in the row"},
    }};

struct TopKDims {
  int64_t num_rows, row_len, k;
};

TopKDims check(const TopKArgs& args);  // throws Error{kInvalidArgument}
void top_k(const TopKArgs& args, const Context& context = {});

inline Cost cost(const TopKArgs& args) {
  const double n = double(args.input.num_elements()), chosen = double(args.values.num_elements());
  return {.bytes = n * size_of(args.input.dtype) + chosen * (size_of(args.values.dtype) + size_of(args.indices.dtype)),
          .flops = n};
}

}  // namespace fulmen
