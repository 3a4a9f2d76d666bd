// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/rope.h"

#include <fulmen/cuda/row_shape.h>

#include <cmath>
#include <cstring>

#include "src/cuda/ids.h"

namespace fulmen::cuda {
namespace {

// What frequencies depend on; a model asks for the same ones at every layer, so the last answer is kept per thread.
struct FrequencyKey {
  double theta, scale, low, high, context;
  int64_t rotary_dim;
};

void fill(const RopeArgs& a, int64_t rotary_dim, rope::Frequencies* f) {
  constexpr double kTwoPi = 6.283185307179586;
  f->step_log2 = -2 * std::log2(a.rope_theta) / double(rotary_dim);
  f->rope_scale = a.rope_scale;
  f->low_freq_factor = a.low_freq_factor, f->high_freq_factor = a.high_freq_factor;
  f->old_context_len = double(a.old_context_len);
  for (int64_t i = 0; i < std::min<int64_t>(rotary_dim / 2, rope::kTable); ++i) {
    const double base = std::exp2(f->step_log2 * double(i));
    double freq = base / a.rope_scale;
    if (a.old_context_len > 0) {
      const double turns = base * f->old_context_len / kTwoPi;
      const double smooth =
          std::clamp((turns - a.low_freq_factor) / (a.high_freq_factor - a.low_freq_factor), 0.0, 1.0);
      freq = (1 - smooth) * freq + smooth * base;
    }
    const double fraction = freq / kTwoPi;
    f->table[i] = uint64_t(std::ldexp(fraction - std::floor(fraction), 64));
  }
}

const rope::Frequencies& frequencies_of(const RopeArgs& a, int64_t rotary_dim) {
  thread_local FrequencyKey last{};
  thread_local rope::Frequencies frequencies{};
  const FrequencyKey key{a.rope_theta, a.rope_scale, a.low_freq_factor, a.high_freq_factor, double(a.old_context_len),
                         rotary_dim};
  if (std::memcmp(&key, &last, sizeof key) != 0) {
    fill(a, rotary_dim, &frequencies);
    last = key;
  }
  return frequencies;
}

rope::Heads heads_of(const TensorView& x, const TensorView& out) {
  if (!x.defined()) return {};
  return {.x = x.data,
          .out = out.data,
          .x_token = x.strides[0],
          .x_head = x.strides[1],
          .out_token = out.strides[0],
          .out_head = out.strides[1],
          .num_heads = int32_t(x.shape[1])};
}

// The most elements that every vector of these heads may have.
int32_t vec_of(const TensorView& t) {
  if (!t.defined()) return 16;
  const uint64_t size = uint64_t(size_of(t.dtype));
  uint64_t bits = uint64_t(t.data);
  for (int32_t i = 0; i < 2; ++i)
    if (t.shape[i] > 1) bits |= uint64_t(t.strides[i]) * size;
  return std::min(max_vec(bits, int32_t(size)), int32_t(16 / size));
}

bool same_place(const TensorView& x, const TensorView& out) {
  return !x.defined() || (x.data == out.data && x.strides[0] == out.strides[0] && x.strides[1] == out.strides[1]);
}

}  // namespace

Work<rope::Key, rope::Params> Rope::work(const Args& a, const Device&) {
  const RopeDims d = check(a);
  const int64_t half = d.rotary_dim / 2, rest = d.head_dim - d.rotary_dim;
  const int64_t copied = same_place(a.q, a.q_out) && same_place(a.k, a.k_out) ? 0 : rest;
  int32_t vec = std::min({vec_of(a.q), vec_of(a.q_out), vec_of(a.k), vec_of(a.k_out)});
  while (half % vec != 0 || copied % vec != 0) vec /= 2;
  Params p{.q = heads_of(a.q, a.q_out),
           .k = heads_of(a.k, a.k_out),
           .pos_ids = ids_of(a.pos_ids),
           .indptr = ids_of(a.indptr),
           .offsets = ids_of(a.offsets),
           .cache = a.cos_sin_cache.data,
           .cache_stride = a.cos_sin_cache.defined() ? a.cos_sin_cache.strides[0] : 0,
           .max_position = a.cos_sin_cache.defined() ? d.max_position : 0,
           .nnz = d.nnz,
           .batch_size = a.offsets.defined() ? d.batch_size : 0,
           .num_pairs = int32_t(half),
           .num_copied = int32_t(copied),
           .frequencies = {}};
  const bool from_cache = a.cos_sin_cache.defined();
  if (!from_cache && half > 0) p.frequencies = frequencies_of(a, d.rotary_dim);
  const Key key{.x = a.q.dtype,
                .cache = from_cache ? a.cos_sin_cache.dtype : DType::kF32,
                .from_cache = from_cache,
                .interleave = a.interleave,
                .vec = vec};
  const int64_t ctas = half + copied == 0 ? 0 : std::min<int64_t>(d.nnz, 0x7fffffff);
  return {
      .key = key, .params = p, .shape = {.grid = uint32_t(ctas), .num_threads = rope::kThreads}, .persistent = false};
}

std::vector<rope::Key> Rope::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (bool interleave : {false, true}) {
      const int32_t vec = 16 / size_of(t);
      keys.push_back({.x = t, .cache = DType::kF32, .from_cache = false, .interleave = interleave, .vec = vec});
      keys.push_back({.x = t, .cache = DType::kF32, .from_cache = true, .interleave = interleave, .vec = vec});
    }
  return keys;
}

}  // namespace fulmen::cuda
