// SPDX-License-Identifier: Apache-2.0
// segment_packbits: packbits of each segment on its own, so that every segment starts on a byte, as custom masks want.
//   out_indptr[0] = 0,   out_indptr[b+1] = out_indptr[b] + ceil((indptr[b+1] − indptr[b]) / 8)
//   out[out_indptr[b] .. out_indptr[b+1]) = packbits(x[indptr[b] .. indptr[b+1]))
// out needs out_indptr[batch_size] bytes, never more than num_bits / 8 + batch_size; bytes behind them are left alone.
#pragma once
#include <fulmen/ops/packbits.h>

namespace fulmen {

struct SegmentPackBitsArgs {
  TensorView x;           // [num_bits] bool, u8
  TensorView indptr;      // [batch_size+1] i32, i64: first bit of each segment
  TensorView out;         // [num_bytes] u8, written; at least out_indptr[batch_size] long
  TensorView out_indptr;  // [batch_size+1] i32, i64, written
  BitOrder bitorder = BitOrder::kBig;
};

inline constexpr OpSchema kSegmentPackBitsSchema{
    "segment_packbits",
    {
        {"x", "num_bits", kBytes, Access::kRead, Presence::kRequired, "booleans, a byte each"},
        {"indptr", "batch_size+1", kIds, Access::kRead, Presence::kRequired, "first bit of each segment"},
        {"out", "num_bytes", kU8, Access::kWrite, Presence::kRequired, "at least out_indptr[batch_size] long"},
        {"out_indptr", "batch_size+1", kIds, Access::kWrite, Presence::kRequired, "first byte of each segment"},
    }};

struct SegmentPackBitsDims {
  int64_t num_bits, batch_size, num_bytes;
};

SegmentPackBitsDims check(const SegmentPackBitsArgs& args);  // throws Error{kInvalidArgument}
void segment_packbits(const SegmentPackBitsArgs& args, const Context& context = {});

inline Cost cost(const SegmentPackBitsArgs& args) {
  const double n = double(args.x.num_elements()), written = n / 8;
  return {.bytes = n + written, .bytes_written = written};
}

}  // namespace fulmen
