// SPDX-License-Identifier: Apache-2.0
// Arguments have names, and a wrong one is the compiler's to find.
// expect: wieght
#include <fulmen/ops/rmsnorm.h>

void call(fulmen::TensorView x) { fulmen::rmsnorm({.input = x, .wieght = x, .out = x}); }
