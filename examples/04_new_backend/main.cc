// SPDX-License-Identifier: Apache-2.0
// Runs an op on the toy device, and shows what happens where the toy has no kernel.
#include <fulmen/ops/rmsnorm.h>

#include <cstdio>

#include "examples/04_new_backend/toy_backend.h"

int main() {
  toy::register_backend();

  auto on_toy = [](fulmen::TensorView t) {
    t.device_type = toy::kToyDevice;
    return t;
  };
  auto* memory = static_cast<float*>(toy::allocate(12 * sizeof(float)));
  for (int i = 0; i < 12; ++i) memory[i] = float(i + 1);
  fulmen::RmsNormArgs args{.input = on_toy(fulmen::view_of(memory, {1, 4})),
                           .weight = on_toy(fulmen::view_of(memory + 4, {4})),
                           .out = on_toy(fulmen::view_of(memory + 8, {1, 4}))};
  fulmen::rmsnorm(args);  // the tensors' device chose the backend
  std::printf("rmsnorm on the toy device: %.3f %.3f %.3f %.3f\n", double(memory[8]), double(memory[9]),
              double(memory[10]), double(memory[11]));

  bool was_refused = false;
  args.input.dtype = args.weight.dtype = args.out.dtype = fulmen::DType::kBF16;
  try {
    fulmen::rmsnorm(args);
  } catch (const fulmen::Error& e) {
    was_refused = e.code == fulmen::Code::kUnsupported;
    std::printf("%s\n", e.what());
  }
  toy::release(memory);
  return was_refused ? 0 : 1;
}
