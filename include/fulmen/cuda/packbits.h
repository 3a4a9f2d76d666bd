// SPDX-License-Identifier: Apache-2.0
// What the packbits kernel and the code that launches it share; fulmen/ops/packbits.h says what it computes.
#pragma once
#include <fulmen/core/portable.h>

namespace fulmen::cuda::packbits {

struct Key {
  int32_t vec = 1;  // booleans per load: 16, 8 or 1; a thread packs at least 8
  bool little = false;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("vec", k.vec), f("little", k.little);
  }
};

inline constexpr int32_t kThreads = 256;
FULMEN_FN constexpr int32_t num_threads(const Key&) { return kThreads; }
FULMEN_FN constexpr int32_t bits_per_thread(const Key& k) { return k.vec > 8 ? k.vec : 8; }

struct Params {
  const uint8_t* x;
  uint8_t* out;
  int64_t num_bits;
};

}  // namespace fulmen::cuda::packbits
