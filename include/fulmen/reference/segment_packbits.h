// SPDX-License-Identifier: Apache-2.0
// segment_packbits: packbits of each segment, one after the other. Exact.
#pragma once
#include <fulmen/ops/segment_packbits.h>
#include <fulmen/reference/packbits.h>

namespace fulmen::reference {

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
