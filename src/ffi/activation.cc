// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/act_and_mul.h>

#include "src/ffi/convert.h"

namespace fulmen::ffi {
namespace {

Activation parse_activation(const String& name) {
  const std::string_view text(name.data(), name.size());
  if (text == "silu") return Activation::kSilu;
  if (text == "gelu") return Activation::kGelu;
  if (text == "gelu_tanh") return Activation::kGeluTanh;
  fail("act_and_mul", "activation", "is \"" + std::string(text) + "\", expected silu, gelu or gelu_tanh");
}

}  // namespace

void act_and_mul_(Tensor input, Tensor out, String activation) {
  const TensorView x = view(input);
  act_and_mul({.input = x, .out = view(out), .activation = parse_activation(activation)}, context_of(x));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(act_and_mul, "input, out, activation",
                  "out = act(gate) * up, input = [gate | up]; activation: silu, gelu or gelu_tanh");
