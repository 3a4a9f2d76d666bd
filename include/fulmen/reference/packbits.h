// SPDX-License-Identifier: Apache-2.0
// packbits and segment_packbits a bit at a time. Exact.
#pragma once
#include <fulmen/ops/segment_packbits.h>
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

struct SegmentPackBits {
  std::vector<uint8_t> out;
  std::vector<int64_t> out_indptr;
};

inline SegmentPackBits segment_packbits(const SegmentPackBitsArgs& a) {
  SegmentPackBits r;
  r.out_indptr.push_back(0);
  for (int64_t b = 0; b + 1 < a.indptr.shape[0]; ++b) {
    const auto bytes = packbits(a.x, int64_t(element(a.indptr, b)), int64_t(element(a.indptr, b + 1)), a.bitorder);
    r.out.insert(r.out.end(), bytes.begin(), bytes.end());
    r.out_indptr.push_back(int64_t(r.out.size()));
  }
  return r;
}

}  // namespace fulmen::reference
