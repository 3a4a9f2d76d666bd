// SPDX-License-Identifier: Apache-2.0
// CPU segment_packbits: out_indptr first, then a segment per work item. Called by src/cpu/levels/segment_packbits.cc.
#pragma once
#include <fulmen/cpu/index_checks.h>
#include <fulmen/cpu/packbits.h>
#include <fulmen/ops/segment_packbits.h>

FULMEN_CPU_BEGIN

inline void segment_packbits(const SegmentPackBitsArgs& a, const SegmentPackBitsDims& d, const Executor& executor) {
  check_indptr("segment_packbits", "indptr", a.indptr, d.num_bits);
  const Ids indptr(a.indptr), out_indptr(a.out_indptr);
  int64_t num_bytes = 0;
  for (int64_t b = 0; b < d.batch_size; ++b) num_bytes += (indptr[b + 1] - indptr[b] + 7) / 8;
  require(d.num_bytes >= num_bytes, "segment_packbits", "out dim 0 (num_bytes)", d.num_bytes,
          std::to_string(num_bytes) + " or more");
  out_indptr.set(0, 0);
  for (int64_t b = 0, at = 0; b < d.batch_size; ++b) out_indptr.set(b + 1, at += (indptr[b + 1] - indptr[b] + 7) / 8);
  parallel_chunks(executor, d.batch_size, 1 + 32768 * d.batch_size / (d.num_bits + 1),
                  [&](int64_t begin, int64_t end, int32_t) {
                    for (int64_t b = begin; b < end; ++b)
                      pack_row(a.x.as<const uint8_t>() + indptr[b], indptr[b + 1] - indptr[b],
                               a.out.as<uint8_t>() + out_indptr[b], a.bitorder);
                  });
}

FULMEN_CPU_END
