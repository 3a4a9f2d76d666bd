// SPDX-License-Identifier: Apache-2.0
// A shape with more dimensions than a TensorView holds.
// expect: constant expression|call to consteval function|outside the bounds of array
#include <fulmen/core/schema.h>

constexpr fulmen::OpSchema kTooLong{"op", {{"x", "a b c d e f g", fulmen::kF32}}};
