// SPDX-License-Identifier: Apache-2.0
// per_token_group_quant_fp8 in double.
// Bound: a scale is one f32 division, 1 unit; a value is multiplied by its rounded reciprocal, 4 units with the scale's
// own error; then the rounding to FP8. A power-of-two scale is exact.
#pragma once
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/reference/quant_fp8.h>

namespace fulmen::reference {

inline QuantFp8 per_token_group_quant_fp8(const PerTokenGroupQuantFp8Args& a) {
  const int64_t num_tokens = a.input.shape[0], hidden_size = a.input.shape[1], num_groups = hidden_size / a.group_size;
  QuantFp8 r{Values(size_t(num_tokens * hidden_size)), Values(size_t(num_tokens * num_groups))};
  for (int64_t t = 0; t < num_tokens; ++t)
    for (int64_t g = 0; g < num_groups; ++g) {
      const int64_t begin = t * hidden_size + g * a.group_size, end = begin + a.group_size;
      double scale = scale_of(a.input, begin, end, a.out.dtype, double(a.eps));
      if (a.pow2_scales) scale = std::exp2(std::ceil(std::log2(double(float(scale)))));
      const int64_t at = a.group_major_scales ? g * num_tokens + t : t * num_groups + g;
      r.scales[size_t(at)] = {scale, a.pow2_scales ? 0 : scale * kUnit};
      for (int64_t i = begin; i < end; ++i) r.out[size_t(i)] = quantized(element(a.input, i), scale, a.out.dtype);
    }
  return r;
}

}  // namespace fulmen::reference
