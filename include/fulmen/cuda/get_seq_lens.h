// SPDX-License-Identifier: Apache-2.0
// What the get_seq_lens kernel and the code that launches it share; fulmen/ops/get_seq_lens.h says what it computes.
#pragma once
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda::get_seq_lens {

struct Key {
  int32_t threads = 256;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("threads", k.threads);
  }
};

FULMEN_FN constexpr int32_t num_threads(const Key& k) { return k.threads; }

struct Params {
  IdVector kv_indptr, last_page_len, seq_lens;
  int64_t batch_size, page_size;
};

}  // namespace fulmen::cuda::get_seq_lens
