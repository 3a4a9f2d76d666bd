// SPDX-License-Identifier: Apache-2.0
// rope: a warp takes a part of a token, kBatch pieces per thread. A piece is two vectors of a head:
//   halves      a = x[i..i+vec), b = x[half+i..half+i+vec)          pairs (a_j, b_j)
//   interleave  a = x[2i..2i+vec), b = x[2i+vec..2i+2vec)           pairs of neighbours
//   copied      the same vectors as interleave, not turned
// The page table is asked first, then the pieces, and the warp computes the token's angles while all are on their way.
// Launched by src/cuda/rope.cc.
#pragma once
#include <fulmen/cuda/rope.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/ptx/warp.cuh>
#include <fulmen/cuda/tile/angles.cuh>
#include <fulmen/cuda/tile/prefetch_tables.cuh>
#include <fulmen/cuda/tile/row.cuh>

namespace fulmen::cuda::rope {

// Position of a token by indptr and offsets; false: no request owns it.
__device__ __forceinline__ bool position_in_request(const Params& p, int64_t token, int64_t* position) {
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

// sin and cos of pair i at a position.
template <Key K>
__device__ __forceinline__ SinCos angle_of(const Params& p, int64_t position, int32_t i) {
  if constexpr (K.from_cache) {
    using C = type_of<K.cache>;
    const int64_t row = position < 0 ? 0 : position < p.max_position ? position : p.max_position - 1;
    const C* cos = static_cast<const C*>(p.cache) + row * p.cache_stride;
    return {widen(cos[p.num_pairs + i]), widen(cos[i])};
  } else {
    return sin_cos_turns(uint32_t(uint64_t(position) * frequency(p.frequencies, i) >> 32));
  }
}

// The token's angles, pair g * vec + j at [j * groups + g]: neighbouring threads read neighbouring ones.
template <Key K>
__device__ __forceinline__ void fill_table(SinCos* table, const Params& p, int64_t position) {
  const int32_t groups = p.num_pairs / K.vec;
  for (int32_t i = warp_lane(); i < p.num_pairs; i += 32)
    table[i % K.vec * groups + i / K.vec] = angle_of<K>(p, position, i);
  sync_warp();
}

template <Key K>
struct Piece {
  using X = type_of<K.x>;
  static constexpr int32_t kBytes = K.vec * int32_t(sizeof(X));
  Bits<kBytes> a, b;
  int32_t segment, head, at, distance;  // head -1: no such piece; distance 0: there is no b

  // Lane's piece of a pass over the token.
  __device__ __forceinline__ void load(const Params& p, int64_t token, int32_t pass) {
    segment = 0;
#pragma unroll
    for (int32_t s = 1; s < kNumSegments; ++s) segment += pass >= p.first_pass[s];
    const Segment& from = p.segment[segment];
    const uint32_t item = uint32_t(pass - p.first_pass[segment]) * 32 + uint32_t(warp_lane());
    const uint32_t groups = uint32_t(from.groups);
    head = int32_t(item / groups);
    const int32_t group = int32_t(item - uint32_t(head) * groups);
    const bool halves = is_turned(segment) && !K.interleave;
    at = halves ? group * K.vec : 2 * group * K.vec;
    distance = halves ? p.num_pairs : at + K.vec < from.width ? K.vec : 0;
    a = b = Bits<kBytes>{};
    if (pass >= p.first_pass[kNumSegments] || head >= from.num_heads) return void(head = -1);
    const X* x = static_cast<const X*>(from.x) + token * from.x_token + head * from.x_head + at;
    a = load_stream<kBytes>(x);
    if (distance > 0) b = load_stream<kBytes>(x + distance);
  }

  __device__ __forceinline__ void turn(float (&x)[2 * K.vec], const SinCos* table, int32_t groups) const {
    const int32_t group = K.interleave ? at / (2 * K.vec) : at / K.vec;
#pragma unroll
    for (int32_t j = 0; j < K.vec; ++j) {
      const SinCos angle = table[j * groups + group];
      float& u = K.interleave ? x[2 * j] : x[j];
      float& v = K.interleave ? x[2 * j + 1] : x[K.vec + j];
      const float turned = u * angle.cos - v * angle.sin;
      v = fmaf(v, angle.cos, u * angle.sin);
      u = turned;
    }
  }

  template <DType kOut>
  __device__ __forceinline__ void finish(const Params& p, int64_t row, float scale, const SinCos* table) const {
    using Out = type_of<kOut>;
    const Segment& to = p.segment[segment];
    Out* out = static_cast<Out*>(to.out) + row + head * to.out_head + at;
    if (kOut == K.x && !is_turned(segment)) {
      store_stream<kBytes>(out, a);
      if (distance > 0) store_stream<kBytes>(out + distance, b);
      return;
    }
    float x[2 * K.vec];  // a, then b
    float(&low)[K.vec] = reinterpret_cast<float(&)[K.vec]>(x[0]);
    float(&high)[K.vec] = reinterpret_cast<float(&)[K.vec]>(x[K.vec]);
    unpack<X, K.vec>(a, low);
    unpack<X, K.vec>(b, high);
    if (is_turned(segment)) turn(x, table, p.num_pairs / K.vec);
    if constexpr (sizeof(Out) == 1) {
#pragma unroll
      for (int32_t j = 0; j < 2 * K.vec; ++j) x[j] *= scale;
    }
    constexpr int32_t kOutBytes = K.vec * int32_t(sizeof(Out));
    store_stream<kOutBytes>(out, pack<Out, K.vec>(low));
    if (distance > 0) store_stream<kOutBytes>(out + distance, pack<Out, K.vec>(high));
  }
};

// Where a token's rows go.
struct Target {
  bool owned = false;  // a request owns the token
  int64_t token;
  PageTable::Slot slot;
};

template <Key K>
__device__ __forceinline__ void store(const Piece<K>& piece, const Params& p, const Target& to, const SinCos* table) {
  const bool query = is_query(piece.segment), paged = K.paged && !query;
  if (piece.head < 0 || !to.owned || (paged && to.slot.page < 0)) return;
  const Segment& s = p.segment[piece.segment];
  const int64_t row = paged ? to.slot.page * s.out_page + to.slot.in_page * s.out_token : to.token * s.out_token;
  const float scale = query ? p.q_scale : p.kv_scale;
  if (K.q_out == K.kv_out || query)
    piece.template finish<K.q_out>(p, row, scale, table);
  else
    piece.template finish<K.kv_out>(p, row, scale, table);
}

// Whether one of a warp's passes is not of queries.
__device__ __forceinline__ bool has_keys_or_values(const Params& p, int32_t pass) {
  const int32_t end = pass + kBatch;
  return (end > p.first_pass[kKTurned] && pass < p.first_pass[kQCopied]) || end > p.first_pass[kKCopied];
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  __shared__ SinCos tables[kThreads / 32][kMostPairs];
  SinCos* table = tables[warp_index()];
  const int64_t warp = int64_t(blockIdx.x) * (kThreads / 32) + warp_index();
  Target to;
  to.token = warp / uint32_t(p.parts);
  if (to.token >= p.nnz) return;
  const int32_t pass = int32_t(warp - to.token * p.parts) * kBatch;
  wait_for_predecessor();
  allow_successor();
  if (K.paged) prefetch_tables(p.pages, int32_t(warp));
  const bool appends = K.paged && has_keys_or_values(p, pass);
  PageTable::Asked asked;
  if (appends) asked = p.pages.ask(to.token);
  const bool by_id = p.pos_ids.data != nullptr;
  int64_t position = by_id ? p.pos_ids[to.token] : 0;
  Piece<K> piece[kBatch];
#pragma unroll
  for (int32_t i = 0; i < kBatch; ++i) piece[i].load(p, to.token, pass + i);
  to.owned = by_id || position_in_request(p, to.token, &position);
  if (appends) p.pages.find_pages(asked);
  if (pass < p.first_pass[kQCopied]) fill_table<K>(table, p, position);  // what turns comes first
  if (appends) to.slot = p.pages.slot_of(asked);
#pragma unroll
  for (int32_t i = 0; i < kBatch; ++i) store<K>(piece[i], p, to, table);
}

}  // namespace fulmen::cuda::rope
