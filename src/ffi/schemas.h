// SPDX-License-Identifier: Apache-2.0
// Every op's schema: the list behind list_schemas, `fulmen show-config` and the support matrix.
#pragma once
#include <fulmen/ops/rmsnorm.h>

#include <array>

namespace fulmen::ffi {

inline constexpr std::array kSchemas{
    &kRmsNormSchema,
};

}  // namespace fulmen::ffi
