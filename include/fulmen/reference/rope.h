// SPDX-License-Identifier: Apache-2.0
// rope in long double, from the formula. Call it before an in-place op.
// Bound: sin and cos err by 1e-6 (the contract up to position 10M) or, from a cache, not at all; two products and a sum
// add 3 units of the terms; then the output is rounded. Elements behind rotary_dim are copied, bound 0.
#pragma once
#include <fulmen/ops/rope.h>
#include <fulmen/reference/bounded.h>

namespace fulmen::reference {

struct Rope {
  Values q, k;
};

inline long double rope_frequency(const RopeArgs& a, int64_t rotary_dim, int64_t i) {
  using Real = long double;
  const Real f = std::pow(Real(a.rope_theta), -2 * Real(i) / Real(rotary_dim));
  if (a.old_context_len == 0) return f / Real(a.rope_scale);
  const Real turns = f * Real(a.old_context_len) / (2 * std::acos(Real(-1)));
  const Real span = Real(a.high_freq_factor) - Real(a.low_freq_factor);
  const Real smooth = std::min(std::max((turns - Real(a.low_freq_factor)) / span, Real(0)), Real(1));
  return (1 - smooth) * f / Real(a.rope_scale) + smooth * f;
}

// Position of token t; false: no request owns it.
inline bool rope_position(const RopeArgs& a, int64_t t, int64_t* position) {
  if (a.pos_ids.defined()) return *position = int64_t(element(a.pos_ids, t)), true;
  for (int64_t b = 0; b < a.offsets.shape[0]; ++b) {
    const int64_t begin = int64_t(element(a.indptr, b)), end = int64_t(element(a.indptr, b + 1));
    if (t >= begin && t < end) return *position = int64_t(element(a.offsets, b)) + t - begin, true;
  }
  return false;
}

// x rotated, times `scale`, in out's dtype.
inline Values rope_one(const RopeArgs& a, const TensorView& x, const TensorView& out, int64_t rotary_dim,
                       double scale = 1) {
  const int64_t num_heads = x.shape[1], dim = x.shape[2], half = rotary_dim / 2;
  const double angle_error = a.cos_sin_cache.defined() ? 0 : 1e-6, units = scale == 1 ? 3 : 5;
  Values y(size_t(x.num_elements()));
  for (int64_t t = 0; t < x.shape[0]; ++t) {
    int64_t position = 0;
    const bool owned = rope_position(a, t, &position);
    for (int64_t i = 0; i < half && owned; ++i) {
      const long double angle =
          a.cos_sin_cache.defined() ? 0 : (long double)position * rope_frequency(a, rotary_dim, i);
      const double c =
          a.cos_sin_cache.defined() ? element(a.cos_sin_cache, position * rotary_dim + i) : double(std::cos(angle));
      const double s = a.cos_sin_cache.defined() ? element(a.cos_sin_cache, position * rotary_dim + half + i)
                                                 : double(std::sin(angle));
      for (int64_t head = 0; head < num_heads; ++head) {
        const int64_t base = (t * num_heads + head) * dim;
        const int64_t at = base + (a.interleave ? 2 * i : i), to = base + (a.interleave ? 2 * i + 1 : i + half);
        const double p = element(x, at), q = element(x, to), size = (std::abs(p) + std::abs(q)) * angle_error;
        const auto sum = [&](double m, double n) {
          const double bound = size + units * kUnit * (std::abs(m) + std::abs(n));
          return rounded_to({scale * (m + n), std::abs(scale) * bound}, out.dtype);
        };
        y[size_t(at)] = sum(p * c, -q * s);
        y[size_t(to)] = sum(q * c, p * s);
      }
    }
    for (int64_t head = 0; head < num_heads; ++head)
      for (int64_t i = owned ? rotary_dim : 0; i < dim; ++i) {
        const int64_t at = (t * num_heads + head) * dim + i;
        y[size_t(at)] = {element(owned ? x : out, at), 0};  // a token without an owner keeps what out held
      }
  }
  return y;
}

inline Rope rope(const RopeArgs& a) {
  const int64_t rotary_dim = check(a).rotary_dim;
  return {rope_one(a, a.q, a.q_out, rotary_dim), a.k.defined() ? rope_one(a, a.k, a.k_out, rotary_dim) : Values{}};
}

}  // namespace fulmen::reference
