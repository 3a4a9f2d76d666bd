// SPDX-License-Identifier: Apache-2.0
// What the segment_packbits kernels and the code that launches them share; fulmen/ops/segment_packbits.h says what they
// compute. Two kernels follow each other: the segments' first bytes, by one CTA; the bytes.
#pragma once
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda::segment_packbits {

enum class Step : int32_t { kOffsets, kPack };
FULMEN_FN constexpr const char* name_of(Step s) {
  constexpr const char* kNames[] = {"offsets", "pack"};
  return uint32_t(s) < 2 ? kNames[int32_t(s)] : "?";
}

struct Key {
  Step step = Step::kPack;
  bool little = false;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("step", k.step), f("little", k.little);
  }
};

inline constexpr int32_t kThreads = 256;
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }

struct Params {
  const uint8_t* x;
  uint8_t* out;
  IdVector indptr, out_indptr;
  int64_t num_bits, num_bytes, batch_size;
};

}  // namespace fulmen::cuda::segment_packbits
