// SPDX-License-Identifier: Apache-2.0
// What the top_k_transform kernel and the code that launches it share; fulmen/ops/top_k_transform.h says what it
// computes.
#pragma once
#include <fulmen/cuda/token_row.h>

namespace fulmen::cuda::top_k_transform {

using Key = TokenKey;
struct Params {
  TokenMatrix input;
  RowIds lengths, row_starts, row_to_batch, page_starts, offsets;
  IdVector page_table;  // none: places as they are
  int64_t page_stride, batch_size, max_pages, page_size;
  TokenOutput out, places;  // places: null if nobody asks
  int32_t k;
  bool large_index;
};

}  // namespace fulmen::cuda::top_k_transform
