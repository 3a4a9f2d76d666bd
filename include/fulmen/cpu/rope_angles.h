// SPDX-License-Identifier: Apache-2.0
// Angles of rotary embeddings: cos and sin of position · freq_i for one position and all i. Also for kernels that
// rotate on the way (attention with RoPE). A frequency is kept as a fraction of a turn in 64-bit fixed point. position
// · fraction wraps modulo 2^64, which is the reduction modulo 2π, exact for every 64-bit position; what remains is the
// error of the frequency in double: below 4e-9 at position 10M.
#pragma once
#include <fulmen/cpu/simd.h>
#include <fulmen/ops/rope.h>

#include <algorithm>
#include <cmath>

namespace fulmen::cpu {

// freq_i / 2π in units of 2^-64 turns, i = 0 .. rotary_dim/2 - 1.
inline void rope_frequencies(const RopeArgs& a, int64_t rotary_dim, uint64_t* turns) {
  constexpr double kTwoPi = 6.283185307179586;
  const double step = -2 * std::log2(a.rope_theta) / double(rotary_dim);
  for (int64_t i = 0; i < rotary_dim / 2; ++i) {
    const double f = std::exp2(step * double(i));
    double freq = f / a.rope_scale;
    if (a.old_context_len > 0) {
      const double turns_in_context = f * double(a.old_context_len) / kTwoPi;
      const double smooth =
          std::clamp((turns_in_context - a.low_freq_factor) / (a.high_freq_factor - a.low_freq_factor), 0.0, 1.0);
      freq = (1 - smooth) * freq + smooth * f;
    }
    const double fraction = freq / kTwoPi;
    turns[i] = uint64_t(std::ldexp(fraction - std::floor(fraction), 64));
  }
}

}  // namespace fulmen::cpu

FULMEN_CPU_BEGIN

// sin and cos of x / 2^32 turns. Absolute error <= 3 units (2e-7): the nearest quarter turn is taken off in integers,
// two polynomials serve -π/4..π/4.
inline void sin_cos_turns(I32 x, F32* sin, F32* cos) {
  const I32 quarter = shift_right<30>(x + splat_i(1 << 29));
  const F32 r = to_float(x - shift_left<30>(quarter)) * splat(1.46291808e-9f);  // π/2 · 2^-30
  const F32 z = r * r;
  const F32 s = fma(r * z, fma(z, fma(z, splat(-1.9501822e-4f), splat(8.33201645e-3f)), splat(-0.166666502f)), r);
  F32 c = fma(z, splat(2.43726791e-5f), splat(-1.38865291e-3f));
  c = fma(z, fma(z, c, splat(4.16666132e-2f)), splat(-0.5f));
  c = fma(z, c, splat(1.f));
  const Mask odd = (quarter & splat_i(1)) == splat_i(1);
  const F32 up = select(odd, c, s), across = select(odd, s, c);
  *sin = select((quarter & splat_i(2)) == splat_i(2), zeros() - up, up);
  *cos = select(((quarter + splat_i(1)) & splat_i(2)) == splat_i(2), zeros() - across, across);
}

// cos[i] and sin[i] of position · freq_i. The arrays are padded to whole registers: num_pairs + kLanes - 1 floats.
inline void rope_angles(int64_t position, const uint64_t* turns, int64_t num_pairs, float* cos, float* sin) {
  int32_t angles[kLanes] = {};
  for (int64_t i = 0; i < num_pairs; i += kLanes) {
    const int64_t left = num_pairs - i < kLanes ? num_pairs - i : kLanes;
    for (int64_t k = 0; k < left; ++k) angles[k] = int32_t(uint32_t(uint64_t(position) * turns[i + k] >> 32));
    F32 s, c;
    sin_cos_turns(load_ints(angles), &s, &c);
    store(sin + i, s);
    store(cos + i, c);
  }
}

FULMEN_CPU_END
