// SPDX-License-Identifier: Apache-2.0
// Which instruction set this process runs its CPU kernels with.
#pragma once
#include <fulmen/core/context.h>

#include <string_view>

namespace fulmen::runtime {

const char* name_of(CpuLevel level);  // "scalar", "avx2", "avx512", "avx512_bf16", "amx_bf16"
bool parse(std::string_view text, CpuLevel* level);

CpuLevel detected_cpu_level();  // what the machine and its system allow
CpuLevel cpu_level();           // the lower of detected and the environment's FULMEN_CPU_LEVEL; fixed at first use

}  // namespace fulmen::runtime
