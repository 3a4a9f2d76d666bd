// SPDX-License-Identifier: Apache-2.0
// Whether a cascade is run in levels or flat, decided on the device.
#pragma once
#include <fulmen/attention/cascade_choice.h>
#include <fulmen/cuda/choose_cascade.h>

#include "src/cuda/op.h"

namespace fulmen::cuda {

struct ChooseCascade {
  using Args = attention::CascadeChoice;
  using Key = choose_cascade::Key;
  using Params = choose_cascade::Params;
  static constexpr const char* kName = "choose_cascade";
  static const TensorView& where(const Args& a) { return a.num_above; }
  static runtime::Refusal refuses(const Args&) { return {}; }
  static void launch(const Args& a, const Device& device, const Context& context);
  static void prepare(const Args& a, const Device& device);
  static std::vector<Key> common_keys() { return {{}}; }
};

}  // namespace fulmen::cuda
