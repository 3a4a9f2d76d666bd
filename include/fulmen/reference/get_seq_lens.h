// SPDX-License-Identifier: Apache-2.0
// get_seq_lens by counting: full pages, then the last. Exact.
#pragma once
#include <fulmen/ops/get_seq_lens.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

inline std::vector<int64_t> get_seq_lens(const GetSeqLensArgs& a) {
  std::vector<int64_t> lens;
  for (int64_t b = 0; b < a.seq_lens.shape[0]; ++b) {
    const int64_t begin = int64_t(element(a.kv_indptr, b)), end = int64_t(element(a.kv_indptr, b + 1));
    int64_t len = 0;
    for (int64_t page = begin; page < end; ++page)
      len += page + 1 < end ? a.page_size : int64_t(element(a.last_page_len, b));
    lens.push_back(len);
  }
  return lens;
}

}  // namespace fulmen::reference
