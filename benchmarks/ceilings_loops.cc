// SPDX-License-Identifier: Apache-2.0
#include "benchmarks/ceilings_loops.h"

#include <fulmen/cpu/simd.h>
#include <fulmen/cpu/simd_bf16_dot.h>
#include <fulmen/cpu/unroll.h>

FULMEN_CPU_BEGIN
namespace {

constexpr int32_t kChains = 12;  // two FMAs a cycle with a latency of four need eight; more would spill at 16 registers

float read_all(const float* p, int64_t n) {
  F32 sum[8];
  for (F32& s : sum) s = zeros();
  for (int64_t i = 0; i < n; i += 8 * kLanes)
    for (int32_t k = 0; k < 8; ++k) sum[k] = sum[k] + load(p + i + k * kLanes);
  return reduce_add(((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])));
}

void copy_all(const float* from, float* to, int64_t n) {
  for (int64_t i = 0; i < n; i += 4 * kLanes)
    for (int32_t k = 0; k < 4; ++k) store(to + i + k * kLanes, load(from + i + k * kLanes));
}

// step(k, sum) for every chain k, `rounds` times over.
template <class Step>
float run_chains(int64_t rounds, Step step) {
  F32 sum[kChains];
  for (int32_t k = 0; k < kChains; ++k) sum[k] = splat(float(k));
  for (int64_t i = 0; i < rounds; ++i) unroll<kChains>([&](auto k) { sum[k] = step(sum[k]); });
  F32 total = zeros();
  for (const F32& s : sum) total = total + s;
  return reduce_add(total);
}

float fma_all(int64_t rounds) {
  const F32 a = splat(0.999f), b = splat(0.001f);
  return run_chains(rounds, [=](F32 sum) { return fma(sum, a, b); });
}

float dot_all(int64_t rounds) {
  const F32 a = splat(0.001f);
  return run_chains(rounds, [=](F32 sum) { return dot_pairs(a, a, sum); });
}

}  // namespace

const bench::Loops kLoops{read_all, copy_all, fma_all, kHasBf16Dot ? dot_all : nullptr, 2.0 * kChains* kLanes};

FULMEN_CPU_END
