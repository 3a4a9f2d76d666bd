// SPDX-License-Identifier: Apache-2.0
// How many CTAs share a row of the vocabulary, and whether it stays in their shared memory.
#pragma once
#include <fulmen/core/tensor_view.h>
#include <fulmen/cuda/token_row.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "src/cuda/launch.h"

namespace fulmen::cuda {

struct TeamShape {
  int32_t size = 1, vec = 1, threads = 512;
  int32_t shared_bytes = 0;
  bool resident = true;

  TokenPath path = TokenPath::kAny;

  TokenKey key(DType x, bool logits) const {
    return {.x = x,
            .vec = vec,
            .threads = threads,
            .logits = logits,
            .cluster = size > 1,
            .resident = resident,
            .path = path};
  }
  Shape launch(int64_t num_rows) const {
    return {.grid = uint32_t(num_rows * size),
            .num_threads = uint32_t(threads),
            .shared_bytes = uint32_t(shared_bytes),
            .cluster = uint32_t(size)};
  }
};

// tensors: those that are copied or written by whole vectors; the first one's row is what is kept. None: rows of f32
// read one by one.
// keeps: the row is wanted in shared memory; else it is read again from global memory. searches: several times.
TeamShape team_for(const Device& device, int64_t num_rows, int64_t n, std::initializer_list<const TensorView*> tensors,
                   bool keeps = true, bool searches = false);
std::string refuses_tokens(int64_t num_rows, int64_t n);
// What serving usual vocabularies needs, for values that are logits or not.
std::vector<TokenKey> token_keys(std::initializer_list<bool> logits, bool keeps = true);

}  // namespace fulmen::cuda
