// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/elementwise.h>
#include <tvm/ffi/container/array.h>

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

void elementwise_(String text, String name, Tensor a, MaybeTensor b, MaybeTensor c, MaybeTensor d, Tensor out,
                  tvm::ffi::Array<double> numbers) {
  const TensorView y = view(out);
  ElementwiseArgs args{.text = {text.data(), text.size()},
                       .name = {name.data(), name.size()},
                       .a = view(a),
                       .b = view(b),
                       .c = view(c),
                       .d = view(d),
                       .out = y};
  require(numbers.size() <= ElementwiseArgs::kNumbers, "elementwise", "numbers", numbers.size(), "8 at most");
  for (size_t i = 0; i < numbers.size(); ++i) args.s[i] = float(numbers[i]);
  elementwise(args, context_of(y));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(act_and_mul, "input, out, activation",
                  "out = act(gate) * up, input = [gate | up]; activation: silu, gelu or gelu_tanh");
FULMEN_FFI_EXPORT(elementwise, "text, name, a, b, c, d, out, numbers",
                  "out = text(a, b, c, d, s) per element, compiled for the device; numbers: what the text calls s");
