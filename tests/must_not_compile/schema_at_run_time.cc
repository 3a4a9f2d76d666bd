// SPDX-License-Identifier: Apache-2.0
// A schema is parsed by the compiler, so that a mistake in one is found before anything runs.
// expect: constant expression|call to consteval function
#include <fulmen/core/schema.h>

fulmen::OpSchema make(std::string_view shape) { return fulmen::OpSchema("op", {{"x", shape, fulmen::kF32}}); }
