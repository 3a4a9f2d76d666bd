// SPDX-License-Identifier: Apache-2.0
// Where a call runs besides what its tensors say: the stream of a GPU, the threads and the instruction set of a CPU.
#pragma once
#include <fulmen/core/executor.h>

namespace fulmen {

// Instruction sets that CPU kernels are compiled for, least to most. Others than x86-64 have kScalar.
enum class CpuLevel : int32_t { kScalar, kAvx2, kAvx512, kAvx512Bf16, kAmxBf16 };

// Whether a CUDA kernel may start while its predecessor ends (runtime/dependent_launch.h), in this call.
enum class DependentLaunch : int8_t { kAsSet, kOff, kOn };  // kAsSet: as the process has it

struct Context {
  const Executor* executor = nullptr;           // null: the library's default pool
  void* stream = nullptr;                       // CUstream on CUDA devices
  CpuLevel max_cpu_level = CpuLevel::kAmxBf16;  // lower: caps this call, as FULMEN_CPU_LEVEL caps the process
  DependentLaunch dependent_launch = DependentLaunch::kAsSet;
};

}  // namespace fulmen
