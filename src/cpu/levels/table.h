// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <fulmen/runtime/backend.h>
#include <fulmen/runtime/cpu_level.h>

#include <vector>

namespace fulmen::cpu {
namespace scalar {
void append_rows(std::vector<runtime::KernelRow>& rows);
}
namespace avx2 {
void append_rows(std::vector<runtime::KernelRow>& rows);
}
namespace avx512 {
void append_rows(std::vector<runtime::KernelRow>& rows);
}
namespace avx512_bf16 {
void append_rows(std::vector<runtime::KernelRow>& rows);
}
}  // namespace fulmen::cpu
