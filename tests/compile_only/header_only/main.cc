// SPDX-License-Identifier: Apache-2.0
// A user's program that compiles a kernel itself, with its own flags, and links nothing of ours.
#include <fulmen/cpu/rmsnorm.h>

#include <cmath>
#include <cstdio>

int main() {
  float input[40], weight[40], out[40];
  for (int i = 0; i < 40; ++i) input[i] = i % 2 ? 1.f : -1.f, weight[i] = float(i);
  const fulmen::RmsNormArgs args{.input = fulmen::view_of(input, {1, 40}),
                                 .weight = fulmen::view_of(weight, {40}),
                                 .out = fulmen::view_of(out, {1, 40})};
  fulmen::cpu::FULMEN_CPU_NS::rmsnorm(args, {.num_tokens = 1, .num_heads = 1, .hidden_size = 40},
                                      fulmen::kSerialExecutor);
  std::printf("level %d: %g\n", FULMEN_CPU_LEVEL_ID, double(out[39]));
  return std::abs(out[39] - 39) < 1e-3f ? 0 : 1;
}
