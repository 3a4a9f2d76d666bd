// SPDX-License-Identifier: Apache-2.0
// A user's program that links the library: normalises one row and checks it.
#include <fulmen/ops/rmsnorm.h>

#include <cmath>
#include <cstdio>

int main() {
  float input[4] = {1, -1, 1, -1}, weight[4] = {1, 2, 3, 4}, out[4] = {};
  fulmen::rmsnorm({.input = fulmen::view_of(input, {1, 4}),
                   .weight = fulmen::view_of(weight, {4}),
                   .out = fulmen::view_of(out, {1, 4})});
  std::printf("%g %g %g %g\n", double(out[0]), double(out[1]), double(out[2]), double(out[3]));
  return std::abs(out[3] + 4) < 1e-4f ? 0 : 1;
}
