// SPDX-License-Identifier: Apache-2.0
// The loops behind ceilings.h. Compiled once per instruction set, like src/cpu/levels.
#pragma once
#include <cstdint>

namespace fulmen::bench {

struct Loops {
  float (*read)(const float* p, int64_t n);               // sums; n is a multiple of 128
  void (*copy)(const float* from, float* to, int64_t n);  // plain stores
  float (*fma)(int64_t rounds);
  float (*bf16_dot)(int64_t rounds);  // null where the instruction set has no products of bf16 pairs
  double flops_per_round;             // of fma; bf16_dot does twice as many
};

}  // namespace fulmen::bench

namespace fulmen::cpu {
namespace scalar {
extern const bench::Loops kLoops;
}
namespace avx2 {
extern const bench::Loops kLoops;
}
namespace avx512 {
extern const bench::Loops kLoops;
}
namespace avx512_bf16 {
extern const bench::Loops kLoops;
}
}  // namespace fulmen::cpu
