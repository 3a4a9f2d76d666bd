// SPDX-License-Identifier: Apache-2.0
// CPU get_seq_lens: a few integers per request, on the calling thread. Called by src/cpu/levels/get_seq_lens.cc.
#pragma once
#include <fulmen/core/executor.h>
#include <fulmen/cpu/index_checks.h>
#include <fulmen/cpu/level.h>
#include <fulmen/ops/get_seq_lens.h>

#include <limits>

FULMEN_CPU_BEGIN

inline void get_seq_lens(const GetSeqLensArgs& a, const GetSeqLensDims& d, const Executor&) {
  check_indptr("get_seq_lens", "kv_indptr", a.kv_indptr, std::numeric_limits<int64_t>::max());
  const Ids indptr(a.kv_indptr), last_page_len(a.last_page_len), seq_lens(a.seq_lens);
  for (int64_t b = 0; b < d.batch_size; ++b)
    if (indptr[b + 1] > indptr[b] && (last_page_len[b] < 1 || last_page_len[b] > a.page_size))
      fail_at("get_seq_lens", "last_page_len", b, last_page_len[b], "1 to page_size " + std::to_string(a.page_size));
  for (int64_t b = 0; b < d.batch_size; ++b) {
    const int64_t num_pages = indptr[b + 1] - indptr[b];
    seq_lens.set(b, num_pages == 0 ? 0 : (num_pages - 1) * a.page_size + last_page_len[b]);
  }
}

FULMEN_CPU_END
