// SPDX-License-Identifier: Apache-2.0
// The host's side of an elementwise operator that is given as text: one function over rows of floats, compiled with the
// text by the host's compiler at run time. src/cpu/text.cc prints the unit.
#pragma once
#include <cstdint>

namespace fulmen::cpu::text {

struct ElementwiseTable {
  static constexpr int32_t kAbi = 1, kNumbers = 8;
  int32_t abi = kAbi;
  // out[i] = text(a[i], b[i], c[i], d[i], s) for i < n; no array overlaps out.
  void (*apply)(const float* a, const float* b, const float* c, const float* d, const float* s, float* out,
                int32_t n) = nullptr;
};

template <class User>
__attribute__((flatten)) void apply(const float* __restrict__ a, const float* __restrict__ b,
                                    const float* __restrict__ c, const float* __restrict__ d, const float* given,
                                    float* __restrict__ out, int32_t n) {
  float s[ElementwiseTable::kNumbers];
  for (int32_t i = 0; i < ElementwiseTable::kNumbers; ++i) s[i] = given[i];
  for (int32_t i = 0; i < n; ++i) out[i] = User::apply(a[i], b[i], c[i], d[i], s);
}

}  // namespace fulmen::cpu::text
