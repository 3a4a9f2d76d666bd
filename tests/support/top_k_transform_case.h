// SPDX-License-Identifier: Apache-2.0
// A call of top_k_transform with random windows and tables, some of them out of range; for the CPU and the GPU.
#pragma once
#include <fulmen/reference/top_k_transform.h>

#include <string>

#include "tests/support/tokens.h"

namespace fulmen::testing {

enum class Table : int32_t { kNone, kPages, kOffsets };
inline constexpr Table kTables[] = {Table::kNone, Table::kPages, Table::kOffsets};

struct TransformCase {
  Tensor input, lengths, starts, pages, batches, page_starts, offsets, out, places;
  TopKTransformArgs args;

  // A length is anything from below 0 to beyond the row; every fifth row is longer than k by one.
  TransformCase(DType dtype, int64_t num_rows, int64_t row_len, int64_t k, Table table, bool all_optional, Shape shape,
                DType ids = DType::kI32, int64_t page_size = 1)
      : input(dtype, {num_rows, row_len}, 4),
        lengths(ids, {num_rows}),
        starts(ids, {num_rows}),
        pages(ids, {3, row_len / page_size + 2}, 1),
        batches(ids, {num_rows}),
        page_starts(ids, {num_rows}),
        offsets(ids, {num_rows}),
        out(ids, {num_rows, k}, 2),
        places(ids, {num_rows, k}, 3) {
    fill_tokens(input, TokenValues::kLogits, shape, uint64_t(row_len + k));
    std::mt19937_64 random(uint64_t(row_len * 3 + k));
    const auto any = [&](int64_t below) { return double(random() % uint64_t(below)); };
    lengths.fill([&](int64_t i) { return i % 5 == 0 ? double(k + 1) : any(row_len + 9) - 3; });
    starts.fill([&](int64_t i) { return i % 7 == 6 ? double(row_len + 1) : i % 7 == 5 ? -1 : any(row_len / 2 + 1); });
    pages.fill([&](int64_t i) { return i % 11 == 0 ? -1 : any(1 << 20); });
    batches.fill([&](int64_t i) { return double(i % 4) - (i % 13 == 12 ? 2 : 0); });  // the fourth is outside
    page_starts.fill([&](int64_t) { return any(12) - 4; });
    offsets.fill([&](int64_t) { return any(100000); });
    args = {.input = input, .lengths = lengths, .out = out, .page_size = page_size};
    if (table == Table::kPages) args.page_table = pages, args.row_to_batch = batches;
    if (table == Table::kOffsets) args.offsets = offsets;
    if (!all_optional) return;
    args.row_starts = starts, args.places = places;
    if (table == Table::kPages) args.page_starts = page_starts;
  }

  // Where the outputs differ from the reference; empty: nowhere.
  std::string difference() const {
    for (bool wants_places : {false, true}) {
      if (wants_places && !args.places.defined()) continue;
      const TensorView& t = wants_places ? args.places : args.out;
      const std::vector<int64_t> expected = reference::top_k_transform(args, wants_places);
      for (int64_t i = 0; i < int64_t(expected.size()); ++i)
        if (reference::element(t, i) != double(expected[size_t(i)]))
          return std::string(wants_places ? "places" : "out") + " " + std::to_string(i / t.shape[1]) + ", " +
                 std::to_string(i % t.shape[1]) + " is " + std::to_string(reference::element(t, i)) + ", expected " +
                 std::to_string(expected[size_t(i)]);
    }
    return out.guards_intact() && places.guards_intact() ? "" : "guard bytes were written";
  }
};

}  // namespace fulmen::testing
