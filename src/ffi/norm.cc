// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/layernorm.h>
#include <fulmen/ops/rmsnorm.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {

void rmsnorm_(Tensor input, Tensor weight, Tensor out, MaybeTensor out_scale, double eps, double weight_bias) {
  const TensorView x = view(input);
  rmsnorm({.input = x,
           .weight = view(weight),
           .out = view(out),
           .out_scale = view(out_scale),
           .eps = float(eps),
           .weight_bias = float(weight_bias)},
          context_of(x));
}

void fused_add_rmsnorm_(Tensor input, Tensor residual, Tensor weight, Tensor out, MaybeTensor out_scale, double eps,
                        double weight_bias) {
  const TensorView x = view(input);
  fused_add_rmsnorm({.input = x,
                     .residual = view(residual),
                     .weight = view(weight),
                     .out = view(out),
                     .out_scale = view(out_scale),
                     .eps = float(eps),
                     .weight_bias = float(weight_bias)},
                    context_of(x));
}

void layernorm_(Tensor input, Tensor gamma, Tensor beta, Tensor out, MaybeTensor out_scale, double eps) {
  const TensorView x = view(input);
  layernorm({.input = x,
             .gamma = view(gamma),
             .beta = view(beta),
             .out = view(out),
             .out_scale = view(out_scale),
             .eps = float(eps)},
            context_of(x));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    rmsnorm, "input, weight, out, out_scale, eps, weight_bias",
    "out = input / sqrt(mean(input²) + eps) * (weight_bias + weight), per row; weight_bias is 1 for Gemma");
FULMEN_FFI_EXPORT(fused_add_rmsnorm, "input, residual, weight, out, out_scale, eps, weight_bias",
                  "residual += input; out = rmsnorm(residual)");
FULMEN_FFI_EXPORT(layernorm, "input, gamma, beta, out, out_scale, eps",
                  "out = (input - mean) / sqrt(variance + eps) * gamma + beta, per row");
