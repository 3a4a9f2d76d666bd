// SPDX-License-Identifier: Apache-2.0
// What the rope kernel and the code that launches it share. It serves every op that rotates queries and keys:
// fulmen/ops/rope.h, rope_quantize_fp8.h, rope_append_paged_kv_cache.h.
//
// A token is up to five segments, each some heads of equal width. The first two turn, the others are copied; all may be
// narrowed to FP8, and those of keys and values may go to a paged cache.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/page_table.h>

namespace fulmen::cuda::rope {

struct Key {
  DType x = DType::kF32, q_out = DType::kF32, kv_out = DType::kF32, cache = DType::kF32;
  bool from_cache = false;  // angles are read from cos_sin_cache
  bool interleave = false;
  bool paged = false;  // keys and values go to a paged cache
  int32_t vec = 1;     // pairs per thread

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("q_out", k.q_out), f("kv_out", k.kv_out), f("cache", k.cache), f("from_cache", k.from_cache),
        f("interleave", k.interleave), f("paged", k.paged), f("vec", k.vec);
  }
};

inline constexpr int32_t kThreads = 128, kBatch = 4;  // pieces in flight per thread, two vectors each
inline constexpr int32_t kTable = 128;
inline constexpr int32_t kMostPairs = 512;  // kMaxRotaryDim / 2
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }

enum SegmentIndex : int32_t { kQTurned, kKTurned, kQCopied, kKCopied, kValue, kNumSegments };
FULMEN_FN constexpr bool is_turned(int32_t segment) { return segment <= kKTurned; }
FULMEN_FN constexpr bool is_query(int32_t segment) { return segment == kQTurned || segment == kQCopied; }

struct Segment {
  const void* x;
  void* out;
  int64_t x_token, x_head;                // elements
  int64_t out_token, out_head, out_page;  // elements; paged: out_token is from slot to slot
  int32_t num_heads;                      // 0: there is none
  int32_t width;                          // elements of a head
  int32_t groups;                         // pieces of a head: 2 * vec elements each
};

// Frequency i in turns of 2^-64: the product with a position wraps modulo one turn, exactly, for any 64-bit position.
struct Frequencies {
  uint64_t table[kTable];  // the first ones; the others are computed by the kernel
  double step_log2;        // freq_i = exp2(step_log2 * i)
  double rope_scale, low_freq_factor, high_freq_factor, old_context_len;
};

struct Params {
  Segment segment[kNumSegments];
  int32_t first_pass[kNumSegments + 1];  // a warp's passes over a token's pieces, 32 at a time; the last one: how many
  int32_t num_pairs;                     // rotary_dim / 2
  int32_t parts;                         // warps of a token
  float q_scale, kv_scale;               // multiply FP8 outputs
  IdVector pos_ids, indptr, offsets;     // pos_ids, or the other two
  const void* cache;
  int64_t cache_stride, max_position;
  int64_t nnz, batch_size;
  PageTable pages;  // where Key::paged
  Frequencies frequencies;
};

}  // namespace fulmen::cuda::rope
