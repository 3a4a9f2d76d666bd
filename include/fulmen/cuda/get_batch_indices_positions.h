// SPDX-License-Identifier: Apache-2.0
// What the get_batch_indices_positions kernel and the code that launches it share;
// fulmen/ops/get_batch_indices_positions.h says what it computes.
#pragma once
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda::get_batch_indices_positions {

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
  IdVector append_indptr, seq_lens, batch_indices, positions;
  int64_t nnz, batch_size;
};

}  // namespace fulmen::cuda::get_batch_indices_positions
