// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/rmsnorm.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {

void rmsnorm_(Tensor input, Tensor weight, Tensor out, double eps, double weight_bias) {
  const TensorView x = view(input);
  rmsnorm({.input = x, .weight = view(weight), .out = view(out), .eps = float(eps), .weight_bias = float(weight_bias)},
          context_of(x));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(rmsnorm, "input, weight, out, eps, weight_bias",
                  "out = input / sqrt(mean(input²) + eps) * (weight_bias + weight), per row; weight_bias is 1 for Gemma");
