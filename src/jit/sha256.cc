// SPDX-License-Identifier: Apache-2.0
#include "src/jit/sha256.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace fulmen::jit {
namespace {

__extension__ typedef unsigned __int128 Wide;  // the constants below need cubes of 35-bit numbers

// floor(sqrt(n * 2^shift)) or floor(cbrt(n * 2^shift)), by bisection.
constexpr uint64_t root_of(Wide n, int32_t degree) {
  Wide low = 0, high = Wide(1) << 40;
  while (high - low > 1) {
    const Wide middle = (low + high) / 2;
    const Wide power = degree == 2 ? middle * middle : middle * middle * middle;
    (power <= n ? low : high) = middle;
  }
  return uint64_t(low);
}

// The standard's constants: the first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<uint32_t, 64> kRound = [] {
  std::array<uint32_t, 64> k{};
  int32_t found = 0;
  for (uint32_t n = 2; found < 64; ++n) {
    bool prime = true;
    for (uint32_t d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
    if (prime) k[size_t(found++)] = uint32_t(root_of(Wide(n) << 96, 3));  // cbrt(n) * 2^32 without its integer part
  }
  return k;
}();
static_assert(kRound[0] == 0x428a2f98 && kRound[63] == 0xc67178f2);

}  // namespace

void Sha256::block(const uint8_t* p) {
  uint32_t w[64];
  for (int32_t i = 0; i < 16; ++i)
    w[i] = uint32_t(p[4 * i]) << 24 | uint32_t(p[4 * i + 1]) << 16 | uint32_t(p[4 * i + 2]) << 8 | p[4 * i + 3];
  for (int32_t i = 16; i < 64; ++i) {
    const uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ w[i - 15] >> 3;
    const uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ w[i - 2] >> 10;
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = std::to_array(state_);
  for (int32_t i = 0; i < 64; ++i) {
    const uint32_t choice = (e & f) ^ (~e & g), majority = (a & b) ^ (a & c) ^ (b & c);
    const uint32_t t1 = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + choice + kRound[size_t(i)] + w[i];
    const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + majority;
    h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
  }
  const uint32_t sums[8] = {a, b, c, d, e, f, g, h};
  for (int32_t i = 0; i < 8; ++i) state_[i] += sums[i];
}

Sha256& Sha256::add(std::string_view bytes) {
  while (!bytes.empty()) {
    const size_t at = num_bytes_ % 64, n = std::min(bytes.size(), 64 - at);
    if (at == 0 && n == 64) {
      block(reinterpret_cast<const uint8_t*>(bytes.data()));
    } else {
      std::memcpy(buffer_ + at, bytes.data(), n);
      if (at + n == 64) block(buffer_);
    }
    num_bytes_ += n;
    bytes.remove_prefix(n);
  }
  return *this;
}

Sha256& Sha256::add_field(std::string_view bytes) { return add(std::to_string(bytes.size())).add(":").add(bytes); }

std::string Sha256::hex() {
  const uint64_t num_bits = num_bytes_ * 8;
  std::string tail(1, char(0x80));
  tail.append((119 - num_bytes_ % 64) % 64, '\0');
  for (int32_t shift = 56; shift >= 0; shift -= 8) tail.push_back(char(num_bits >> shift & 0xff));
  add(tail);
  std::string text;
  for (uint32_t word : state_)
    for (int32_t shift = 28; shift >= 0; shift -= 4) text.push_back("0123456789abcdef"[word >> shift & 15]);
  return text;
}

}  // namespace fulmen::jit
