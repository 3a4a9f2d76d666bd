// SPDX-License-Identifier: Apache-2.0
// A shape with more dimensions than a TensorView holds.
// expect: constant expression|call to consteval function
#include <fulmen/core/schema.h>

constexpr fulmen::OpSchema kTooLong{"op", {{"x", "a b c d e f g", fulmen::kF32}}};
