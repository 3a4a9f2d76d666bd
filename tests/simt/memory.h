// SPDX-License-Identifier: Apache-2.0
// The emulated device's memory and its fibers' stacks, such that accesses beside them show.
#pragma once
#include <fulmen/core/error.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>

#include "tests/support/asan.h"

namespace fulmen::simt {

inline constexpr size_t kPageBytes = 4096;

// A fiber's, with a page below it that nobody may touch. They are kept from one launch to the next.
class Stack {
 public:
  Stack() {
    void* memory =
        mmap(nullptr, mapped_bytes(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw Error(Code::kInternal, "simt: no memory for a stack");
    lowest_ = static_cast<char*>(memory);
    mprotect(lowest_, kPageBytes, PROT_NONE);
  }
  ~Stack() { munmap(lowest_, mapped_bytes()); }
  Stack(const Stack&) = delete;
  Stack& operator=(const Stack&) = delete;
  char* data() const { return lowest_ + kPageBytes; }
  static size_t num_bytes() { return testing::with_asan() ? 256 << 10 : 64 << 10; }  // frames grow with it

 private:
  static size_t mapped_bytes() { return num_bytes() + kPageBytes; }
  char* lowest_;
};

struct Free {
  void operator()(void* p) const { std::free(p); }
};
// Exactly as many bytes as were asked for, so that AddressSanitizer sees the one behind them used; null: none left.
inline void* allocate(size_t num_bytes) {
  void* memory = nullptr;
  return posix_memalign(&memory, 256, std::max<size_t>(num_bytes, 1)) == 0 ? memory : nullptr;
}

}  // namespace fulmen::simt
