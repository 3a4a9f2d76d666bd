// SPDX-License-Identifier: Apache-2.0
// Tells AddressSanitizer, in programs that run with it, which bytes nobody may touch; elsewhere this does nothing.
#pragma once
#include <cstddef>

extern "C" {
__attribute__((weak)) void __asan_poison_memory_region(const volatile void*, size_t);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void*, size_t);
}

namespace fulmen::testing {

inline bool with_asan() { return &__asan_poison_memory_region != nullptr; }
inline void forbid(const void* p, size_t num_bytes) {
  if (with_asan()) __asan_poison_memory_region(p, num_bytes);
}
inline void allow(const void* p, size_t num_bytes) {
  if (with_asan()) __asan_unpoison_memory_region(p, num_bytes);
}

}  // namespace fulmen::testing
