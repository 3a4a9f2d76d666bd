// SPDX-License-Identifier: Apache-2.0
// What the rope kernel and the code that launches it share; fulmen/ops/rope.h says what it computes.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda::rope {

struct Key {
  DType x = DType::kF32, cache = DType::kF32;
  bool from_cache = false;  // angles are read from cos_sin_cache
  bool interleave = false;
  int32_t vec = 1;  // pairs per thread

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("cache", k.cache), f("from_cache", k.from_cache), f("interleave", k.interleave), f("vec", k.vec);
  }
};

inline constexpr int32_t kThreads = 256, kHeadsAtOnce = 2, kTable = 128;
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }

struct Heads {
  const void* x;
  void* out;
  int64_t x_token, x_head, out_token, out_head;  // elements
  int32_t num_heads;
};

// Frequency i in turns of 2^-64: the product with a position wraps modulo one turn, exactly, for any 64-bit position.
struct Frequencies {
  uint64_t table[kTable];  // the first ones; the others are computed by the kernel
  double step_log2;        // freq_i = exp2(step_log2 * i)
  double rope_scale, low_freq_factor, high_freq_factor, old_context_len;
};

struct Params {
  Heads q, k;
  IdVector pos_ids, indptr, offsets;  // pos_ids, or the other two
  const void* cache;
  int64_t cache_stride, max_position;
  int64_t nnz, batch_size;
  int32_t num_pairs;   // rotary_dim / 2
  int32_t num_copied;  // elements behind rotary_dim; 0 also where nothing needs to be moved
  Frequencies frequencies;
};

}  // namespace fulmen::cuda::rope
