// SPDX-License-Identifier: Apache-2.0
// packbits a bit at a time. Exact.
#pragma once
#include <fulmen/ops/packbits.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

inline std::vector<uint8_t> packbits(const TensorView& x, int64_t begin, int64_t end, BitOrder order) {
  std::vector<uint8_t> out(size_t((end - begin + 7) / 8));
  for (int64_t i = 0; i < end - begin; ++i) {
    const int64_t shift = order == BitOrder::kLittle ? i % 8 : 7 - i % 8;
    if (element(x, begin + i) != 0) out[size_t(i / 8)] = uint8_t(out[size_t(i / 8)] | 1 << shift);
  }
  return out;
}

}  // namespace fulmen::reference
