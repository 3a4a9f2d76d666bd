// SPDX-License-Identifier: Apache-2.0
// elementwise: the one op whose kernel is not named by its key alone, but by the caller's text too.
#pragma once
#include <fulmen/cuda/elementwise.h>
#include <fulmen/ops/elementwise.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

// The unit of a text: it stands in a file of its own, named `name`, so that errors count its lines.
jit::Unit elementwise_unit(const elementwise::Key& key, std::string_view name, std::string_view text);

struct Elementwise {
  using Args = ElementwiseArgs;
  using Key = elementwise::Key;
  static constexpr const char* kName = "elementwise";
  static const TensorView& where(const Args& a) { return a.out; }
  static runtime::Refusal refuses(const Args& a);
  static void launch(const Args& a, const Device& device, const Context& context);
  static void prepare(const Args& a, const Device& device);
};

}  // namespace fulmen::cuda
