// SPDX-License-Identifier: Apache-2.0
// packbits: eight booleans to a byte, as numpy.packbits. A non-zero byte is a 1; missing bits of the last byte are 0.
//   little: element i is bit i mod 8 of byte i / 8;   big: bit 7 − i mod 8
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

enum class BitOrder : int32_t { kBig, kLittle };

struct PackBitsArgs {
  TensorView x;                        // [num_bits] bool, u8
  TensorView out;                      // [ceil(num_bits / 8)] u8, written
  BitOrder bitorder = BitOrder::kBig;  // FlashInfer's and NumPy's default; attention masks are little
};

inline constexpr OpSchema kPackBitsSchema{
    "packbits",
    {
        {"x", "num_bits", kBytes, Access::kRead, Presence::kRequired, "booleans, a byte each"},
        {"out", "num_bytes", kU8, Access::kWrite, Presence::kRequired, "ceil(num_bits / 8)"},
    }};

struct PackBitsDims {
  int64_t num_bits, num_bytes;
};

PackBitsDims check(const PackBitsArgs& args);  // throws Error{kInvalidArgument}
void packbits(const PackBitsArgs& args, const Context& context = {});

inline Cost cost(const PackBitsArgs& args) {
  const double n = double(args.x.num_elements()), written = double(args.out.num_elements());
  return {.bytes = n + written, .bytes_written = written};
}

}  // namespace fulmen
