// SPDX-License-Identifier: Apache-2.0
// An elementwise operator of one's own on a GPU, from its text; and what a mistake in the text looks like.
// Without a GPU it says so and ends well.
#include <fulmen/core/error.h>
#include <fulmen/ops/elementwise.h>
#include <fulmen/runtime/registry.h>

#include <cstdio>

namespace {

// gate, up, out: [num_tokens, n] on the GPU.
void scaled_swiglu(const fulmen::TensorView& gate, const fulmen::TensorView& up, const fulmen::TensorView& out) {
  fulmen::elementwise({.text = "const float gate = a / (1 + expf(-a));\n"
                               "return gate * b * s[0];",
                       .name = "scaled_swiglu",
                       .a = gate,
                       .b = up,
                       .out = out,
                       .s = {0.5f}});
}

}  // namespace

int main() {
  const fulmen::runtime::Backend* gpu = fulmen::runtime::find_backend(fulmen::DeviceType::kCuda);
  if (gpu == nullptr || gpu->num_devices() == 0) {
    std::printf("no GPU here: nothing to run\n");
    return 0;
  }
  fulmen::TensorView none;  // a real program passes its tensors; rows of no token need no memory
  none.rank = 2, none.shape[1] = 8, none.strides[0] = 8, none.strides[1] = 1;
  none.dtype = fulmen::DType::kBF16, none.device_type = fulmen::DeviceType::kCuda;
  try {
    scaled_swiglu(none, none, none);
    std::printf("scaled_swiglu: done\n");
  } catch (const fulmen::Error& e) {
    std::printf("%s\n", e.what());
    return 1;
  }
  return 0;
}
