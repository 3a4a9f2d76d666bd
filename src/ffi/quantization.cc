// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/packbits.h>
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/ops/segment_packbits.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {
namespace {

BitOrder parse_bitorder(const char* op, const String& name) {
  const std::string_view text(name.data(), name.size());
  if (text == "big") return BitOrder::kBig;
  if (text == "little") return BitOrder::kLittle;
  fail(op, "bitorder", "is \"" + std::string(text) + "\", expected big or little");
}

}  // namespace

void packbits_(Tensor x, Tensor out, String bitorder) {
  const TensorView bits = view(x);
  packbits({.x = bits, .out = view(out), .bitorder = parse_bitorder("packbits", bitorder)}, context_of(bits));
}

void segment_packbits_(Tensor x, Tensor indptr, Tensor out, Tensor out_indptr, String bitorder) {
  const TensorView bits = view(x);
  segment_packbits({.x = bits,
                    .indptr = view(indptr),
                    .out = view(out),
                    .out_indptr = view(out_indptr),
                    .bitorder = parse_bitorder("segment_packbits", bitorder)},
                   context_of(bits));
}

void per_tensor_quant_fp8_(Tensor input, Tensor out, Tensor scale, bool dynamic) {
  const TensorView x = view(input);
  per_tensor_quant_fp8({.input = x, .out = view(out), .scale = view(scale), .dynamic = dynamic}, context_of(x));
}

void per_token_group_quant_fp8_(Tensor input, Tensor out, Tensor scales, int64_t group_size, double eps,
                                bool group_major_scales, bool pow2_scales) {
  const TensorView x = view(input);
  per_token_group_quant_fp8({.input = x,
                             .out = view(out),
                             .scales = view(scales),
                             .group_size = group_size,
                             .eps = float(eps),
                             .group_major_scales = group_major_scales,
                             .pow2_scales = pow2_scales},
                            context_of(x));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(packbits, "x, out, bitorder", "eight booleans to a byte; bitorder: big or little");
FULMEN_FFI_EXPORT(segment_packbits, "x, indptr, out, out_indptr, bitorder", "packbits of each segment from a byte on");
FULMEN_FFI_EXPORT(per_tensor_quant_fp8, "input, out, scale, dynamic",
                  "out = fp8(input / scale); dynamic: scale is taken from the input and written");
FULMEN_FFI_EXPORT(per_token_group_quant_fp8, "input, out, scales, group_size, eps, group_major_scales, pow2_scales",
                  "fp8 with one scale per token and group of neighbouring elements");
