// SPDX-License-Identifier: Apache-2.0
// SHA-256 (FIPS 180-4): names cache entries by their content and proves on load that nothing was damaged.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace fulmen::jit {

class Sha256 {
 public:
  Sha256& add(std::string_view bytes);
  // Adds the length first, so that ("ab", "c") and ("a", "bc") differ.
  Sha256& add_field(std::string_view bytes);
  std::string hex();  // 64 digits; ends the computation

 private:
  void block(const uint8_t* p);

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  uint8_t buffer_[64];
  uint64_t num_bytes_ = 0;
};

inline std::string sha256(std::string_view bytes) { return Sha256().add(bytes).hex(); }

}  // namespace fulmen::jit
