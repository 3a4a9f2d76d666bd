// SPDX-License-Identifier: Apache-2.0
#include <fulmen/core/error.h>
#include <fulmen/runtime/cpu_level.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace fulmen::runtime {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx512", "avx512_bf16", "amx_bf16"};

#if defined(__x86_64__) && defined(__linux__)
// The processor may have tiles while the system withholds them: Linux grants them per process, on request.
bool amx_allowed() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  const bool has_tiles = (d >> 24 & 1u) != 0 && (d >> 22 & 1u) != 0;  // AMX-TILE, AMX-BF16
  constexpr long kRequestPermission = 0x1023, kTileData = 18;         // arch_prctl
  return has_tiles && syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

CpuLevel detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !__builtin_cpu_supports("bmi2"))
    return CpuLevel::kScalar;
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return CpuLevel::kAvx2;
  uint32_t a = 0, b = 0, c = 0, d = 0;
  __get_cpuid_count(7, 1, &a, &b, &c, &d);
  const bool bf16 = (a >> 5 & 1u) != 0 && __builtin_cpu_supports("avx512vbmi");
  if (!bf16) return CpuLevel::kAvx512;
  return amx_allowed() ? CpuLevel::kAmxBf16 : CpuLevel::kAvx512Bf16;
}
#else
CpuLevel detect() { return CpuLevel::kScalar; }
#endif

CpuLevel capped() {
  const CpuLevel machine = detected_cpu_level();
  const char* text = std::getenv("FULMEN_CPU_LEVEL");
  if (text == nullptr || *text == '\0') return machine;
  CpuLevel cap;
  if (!parse(text, &cap))
    fail("FULMEN_CPU_LEVEL", "",
         std::string("is '") + text + "', expected scalar, avx2, avx512, avx512_bf16 or amx_bf16");
  return std::min(machine, cap);
}

}  // namespace

const char* name_of(CpuLevel level) { return kNames[int32_t(level)]; }

bool parse(std::string_view text, CpuLevel* level) {
  for (int32_t i = 0; i < 5; ++i)
    if (text == kNames[i]) return *level = CpuLevel(i), true;
  return false;
}

CpuLevel detected_cpu_level() {
  static const CpuLevel level = detect();
  return level;
}

CpuLevel cpu_level() {
  static const CpuLevel level = capped();
  return level;
}

}  // namespace fulmen::runtime
