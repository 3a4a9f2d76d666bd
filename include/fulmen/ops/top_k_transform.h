// SPDX-License-Identifier: Apache-2.0
// top_k_transform: where a sparse attention finds the k best-scored tokens of each row. With n = lengths[row] and the
// window input[row, s .. s+n-1], s = row_starts[row] or 0, the k largest of the window in index order, i from its
// start:
//   page_table  → out = page_table[b, j / page_size] · page_size + j % page_size,  j = i + page_starts[row] or i,
//                 b = row_to_batch[row] or row
//   offsets     → out = offsets[row] + i
//   neither     → out = i
// A window of fewer than k elements fills the rest of its row with -1. The order of values and the choice among ties
// are top_k's. A length is cut to what is left of the row, negative numbers count as 0; -1 where a page, a page-table
// row or a start lies outside its tensor.
#pragma once
#include <fulmen/ops/top_k.h>

namespace fulmen {

struct TopKTransformArgs {
  TensorView input;                            // [num_rows, row_len] f32, f16, bf16
  TensorView lengths;                          // [num_rows] i32, i64
  TensorView row_starts;                       // [num_rows] i32, i64; optional
  TensorView page_table;                       // [batch_size, max_pages] i32, i64; optional
  TensorView row_to_batch;                     // [num_rows] i32, i64; optional, with page_table
  TensorView page_starts;                      // [num_rows] i32, i64, tokens; optional, with page_table
  TensorView offsets;                          // [num_rows] i32, i64; optional, instead of page_table
  TensorView out;                              // [num_rows, k] i32, i64, written; k <= row_len
  TensorView places;                           // [num_rows, k] i32, i64, written: i itself; optional
  int64_t page_size = 1;                       // tokens
  TieBreak tie_break = TieBreak::kSmallIndex;  // which of equal values is chosen
};

inline constexpr OpSchema kTopKTransformSchema{
    "top_k_transform",
    {
        {"input", "num_rows row_len", kFloats, Access::kRead, Presence::kRequired, "scores"},
        {"lengths", "num_rows", kIds, Access::kRead, Presence::kRequired, "elements of each row's window"},
        {"row_starts", "num_rows", kIds, Access::kRead, Presence::kOptional, "where each window starts"},
        {"page_table", "batch_size max_pages", kIds, Access::kRead, Presence::kOptional, "pages of each request"},
        {"row_to_batch", "num_rows", kIds, Access::kRead, Presence::kOptional, "each row's row of page_table"},
        {"page_starts", "num_rows", kIds, Access::kRead, Presence::kOptional, "token of page_table's row at i = 0"},
        {"offsets", "num_rows", kIds, Access::kRead, Presence::kOptional, "added to i, instead of page_table"},
        {"out", "num_rows k", kIds, Access::kWrite, Presence::kRequired,
         "tokens, in the order of i; -1 beyond the window"},
        {"places", "num_rows k", kIds, Access::kWrite, Presence::kOptional, "i itself; -1 beyond the window"},
    }};

TopKDims check(const TopKTransformArgs& args);  // throws Error{kInvalidArgument}
void top_k_transform(const TopKTransformArgs& args, const Context& context = {});

inline Cost cost(const TopKTransformArgs& args) {
  const double n = double(args.input.num_elements()), chosen = double(args.out.num_elements());
  const double tables = args.page_table.defined() ? chosen * size_of(args.page_table.dtype) : 0;
  return {.bytes = n * size_of(args.input.dtype) + tables + chosen * size_of(args.out.dtype), .flops = n};
}

}  // namespace fulmen
