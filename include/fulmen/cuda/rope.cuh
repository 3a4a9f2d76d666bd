// SPDX-License-Identifier: Apache-2.0
// rope: a CTA rotates all heads of one token. A thread owns `vec` pairs of a head, computes their angles once, and
// walks over the heads, two at a time:
//   halves      a = x[i..i+vec), b = x[half+i..half+i+vec)          pairs (a_j, b_j)
//   interleave  a = x[2i..2i+vec), b = x[2i+vec..2i+2vec)           pairs of neighbours
// Elements behind rotary_dim are copied by threads of their own. Launched by src/cuda/rope.cc.
#pragma once
#include <fulmen/cuda/rope.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/angles.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::rope {

// Position of a token; false: no request owns it.
__device__ __forceinline__ bool position_of(const Params& p, int64_t token, int64_t* position) {
  if (p.pos_ids.data != nullptr) return *position = p.pos_ids[token], true;
  if (p.batch_size == 0 || token < p.indptr[0] || token >= p.indptr[p.batch_size]) return false;
  int64_t low = 0, high = p.batch_size;  // the last request that starts at or before the token
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (p.indptr[middle] <= token ? low : high) = middle;
  }
  *position = p.offsets[low] + (token - p.indptr[low]);
  return true;
}

__device__ __forceinline__ uint64_t frequency(const Frequencies& f, int32_t i) {
  if (i < kTable) return f.table[i];
  constexpr double kTwoPi = 6.283185307179586;
  const double base = exp2(f.step_log2 * double(i));
  double freq = base / f.rope_scale;
  if (f.old_context_len > 0) {
    const double turns = base * f.old_context_len / kTwoPi;
    const double smooth = fmin(fmax((turns - f.low_freq_factor) / (f.high_freq_factor - f.low_freq_factor), 0.0), 1.0);
    freq = (1 - smooth) * freq + smooth * base;
  }
  const double fraction = freq / kTwoPi;
  return uint64_t((fraction - floor(fraction)) * 18446744073709551616.0);
}

template <Key K>
__device__ __forceinline__ void angles(const Params& p, int64_t position, int32_t first, SinCos (&out)[K.vec]) {
  if constexpr (K.from_cache) {
    using C = type_of<K.cache>;
    const int64_t row = position < 0 ? 0 : position < p.max_position ? position : p.max_position - 1;
    const C* cos = static_cast<const C*>(p.cache) + row * p.cache_stride + first;
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j) out[j] = {widen(cos[p.num_pairs + j]), widen(cos[j])};
  } else {
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j)
      out[j] = sin_cos_turns(uint32_t(uint64_t(position) * frequency(p.frequencies, first + j) >> 32));
  }
}

// One token's part of a head: two vectors, or with n = vec one of those behind rotary_dim.
template <Key K>
struct Piece {
  using X = type_of<K.x>;
  static constexpr int32_t kBytes = K.vec * int32_t(sizeof(X));
  Bits<kBytes> a{}, b{};
  X* out = nullptr;  // null: no such head

  __device__ __forceinline__ void load(const Params& p, int64_t token, int32_t head, int32_t at, int32_t distance) {
    out = nullptr;
    if (head >= p.q.num_heads + p.k.num_heads) return;
    const Heads& heads = head < p.q.num_heads ? p.q : p.k;
    const int32_t h = head < p.q.num_heads ? head : head - p.q.num_heads;
    const X* x = static_cast<const X*>(heads.x) + token * heads.x_token + h * heads.x_head + at;
    out = static_cast<X*>(heads.out) + token * heads.out_token + h * heads.out_head + at;
    a = load_stream<kBytes>(x);
    if (distance > 0) b = load_stream<kBytes>(x + distance);
  }
  __device__ __forceinline__ void rotate(const SinCos (&angle)[K.vec], int32_t distance) const {
    float x[2 * K.vec];  // a, then b
    float(&low)[K.vec] = reinterpret_cast<float(&)[K.vec]>(x[0]);
    float(&high)[K.vec] = reinterpret_cast<float(&)[K.vec]>(x[K.vec]);
    unpack<X, K.vec>(a, low);
    unpack<X, K.vec>(b, high);
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j) {
      float& u = K.interleave ? x[2 * j] : x[j];
      float& v = K.interleave ? x[2 * j + 1] : x[K.vec + j];
      const float turned = u * angle[j].cos - v * angle[j].sin;
      v = fmaf(v, angle[j].cos, u * angle[j].sin);
      u = turned;
    }
    store_stream<kBytes>(out, pack<X, K.vec>(low));
    store_stream<kBytes>(out + distance, pack<X, K.vec>(high));
  }
};

// The vectors of one group in heads first_head, first_head + heads_per_pass, … of a token.
template <Key K>
__device__ __forceinline__ void turn_group(const Params& p, int64_t token, int64_t position, int32_t group,
                                           int32_t first_head, int32_t heads_per_pass) {
  const int32_t turning = p.num_pairs / K.vec, pair = group * K.vec;
  const bool copies = group >= turning;
  const int32_t at = copies ? 2 * p.num_pairs + (group - turning) * K.vec : K.interleave ? 2 * pair : pair;
  const int32_t distance = copies ? 0 : K.interleave ? K.vec : p.num_pairs;
  SinCos angle[K.vec];
  if (!copies) angles<K>(p, position, pair, angle);
  for (int32_t head = first_head; head < p.q.num_heads + p.k.num_heads; head += kHeadsAtOnce * heads_per_pass) {
    Piece<K> piece[kHeadsAtOnce];
#pragma unroll
    for (int32_t i = 0; i < kHeadsAtOnce; ++i) piece[i].load(p, token, head + i * heads_per_pass, at, distance);
#pragma unroll
    for (int32_t i = 0; i < kHeadsAtOnce; ++i) {
      if (piece[i].out == nullptr) continue;
      copies ? store_stream<Piece<K>::kBytes>(piece[i].out, piece[i].a) : piece[i].rotate(angle, distance);
    }
  }
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  const int32_t groups = (p.num_pairs + p.num_copied) / K.vec, lanes = groups < kThreads ? groups : kThreads;
  const int32_t heads_per_pass = kThreads / lanes, first_head = int32_t(threadIdx.x) / lanes;
  wait_for_predecessor();
  allow_successor();
  if (first_head >= heads_per_pass) return;
  for (int64_t token = blockIdx.x; token < p.nnz; token += gridDim.x) {
    int64_t position = 0;
    if (!position_of(p, token, &position)) continue;
    for (int32_t group = int32_t(threadIdx.x) % lanes; group < groups; group += lanes)
      turn_group<K>(p, token, position, group, first_head, heads_per_pass);
  }
}

}  // namespace fulmen::cuda::rope
