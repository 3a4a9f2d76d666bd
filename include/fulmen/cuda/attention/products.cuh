// SPDX-License-Identifier: Apache-2.0
// The two products of a warp with one tile of keys: scores = Q Kᵀ, outputs += weights V. Operands come from swizzled
// rows in shared memory; FP8 keys and values are widened on their way to the tensor cores.
//
// FP8: a lane's word of a 16-byte column holds elements 4t..4t+3 of a key, so that depth index 2t, 2t+1, 2t+8, 2t+9 of
// the product means those; Q's elements are stored in that order (q_word). Of transposed values a word holds elements
// 2g and 2g+1 of two keys, so that even and odd elements go to different tiles of the output (output_column).
#pragma once
#include <fulmen/cuda/attention/loader.cuh>
#include <fulmen/cuda/ptx/cvt.cuh>
#include <fulmen/cuda/ptx/mma.cuh>

namespace fulmen::cuda::batch_attention {

template <Key K>
using Half = type_of<K.q>;  // f16 or bf16: what the tensor cores multiply
template <Key K>
inline constexpr bool kNarrow = size_of(K.kv) == 1;

template <Key K>
struct Scores {
  static constexpr int32_t kTiles = K.block_kv / 8;
  float s[K.m_tiles][kTiles][4];
};
template <Key K>
struct Outputs {
  static constexpr int32_t kTiles = K.d_vo / 8;
  float o[K.m_tiles][kTiles][4];
};

// Of the eight words (pairs of elements) of 16 elements of Q, where word w is stored.
template <Key K>
__device__ __forceinline__ int32_t q_word(int32_t w) {
  return kNarrow<K> ? w / 2 + w % 2 * 4 : w;
}

template <Key K>
class Queries {  // a warp's rows
 public:
  static constexpr int32_t kSteps = K.d_qk / 16, kChunks = K.d_qk / 8;
  // Registers for queries, outputs and scores.
  static constexpr int32_t kMost = kNarrow<K> || kArch < 80 || (K.warps_q == 1 && K.m_tiles > 1) ? 136 : 208;
  static constexpr bool kInRegisters =
      lends_stage(K) || K.m_tiles * (K.d_qk / 4 + K.d_vo / 2 + K.block_kv / 2) <= kMost;

  __device__ __forceinline__ Queries(uint32_t rows, int32_t lane) {
    first_ = rows + uint32_t(Swizzle<kChunks>::at(lane % 16, lane / 16));
    if constexpr (kInRegisters) {
#pragma unroll
      for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
        for (int32_t step = 0; step < kSteps; ++step) read(kept_[m][step], first_, m, step);
    }
  }
  // Every get() of a product is given the same first(): with it forgotten, addresses are not kept between products.
  __device__ __forceinline__ uint32_t first() const { return forget(first_); }
  __device__ __forceinline__ void get(uint32_t (&a)[4], uint32_t first, int32_t m, int32_t step) const {
    if constexpr (kInRegisters) {
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) a[i] = kept_[m][step][i];
    } else {
      read(a, first, m, step);
    }
  }

 private:
  __device__ __forceinline__ void read(uint32_t (&a)[4], uint32_t first, int32_t m, int32_t step) const {
    load_matrices(a, Swizzle<kChunks>::from(first, 2 * step) + uint32_t(m * 16 * kChunks * 16));
  }
  uint32_t first_;
  uint32_t kept_[kInRegisters ? K.m_tiles : 1][kInRegisters ? kSteps : 1][4];
};

// keys_at and values_at below: of a lane's first chunk.
// 16 keys' operands of one depth step, for two tiles of eight keys; FP8: 32 keys', for four.
template <Key K>
class KeyOperands {
 public:
  static constexpr int32_t kChunks = K.d_qk * size_of(K.kv) / 16;
  static constexpr int32_t kKeys = kNarrow<K> ? 32 : 16, kTiles = kKeys / 8;

  // Where a lane's first chunk lies, from the first key.
  __device__ __forceinline__ static uint32_t offset(int32_t lane) {
    return uint32_t(kNarrow<K> ? Swizzle<kChunks>::at(lane, 0)
                               : Swizzle<kChunks>::at(lane / 16 * 8 + lane % 8, lane / 8 % 2));
  }
  __device__ __forceinline__ explicit KeyOperands(uint32_t first) : first_(first) {}
  __device__ __forceinline__ void get(uint32_t (&b)[kTiles][2], int32_t block, int32_t step) const {
    const int32_t chunk = kNarrow<K> ? step : 2 * step;
    uint32_t r[4];
    load_matrices(r, Swizzle<kChunks>::from(first_, chunk) + uint32_t(block * kKeys * kChunks * 16));
#pragma unroll
    for (int32_t i = 0; i < kTiles; ++i) {
      if constexpr (kNarrow<K>)
        widen_low_high<Half<K>, type_of<K.kv>>(r[i], b[i][0], b[i][1]);
      else
        b[i][0] = r[2 * i], b[i][1] = r[2 * i + 1];
    }
  }

 private:
  uint32_t first_;
};

template <Key K>
__device__ __forceinline__ void clear(Scores<K>& scores) {
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t n = 0; n < Scores<K>::kTiles; ++n)
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) scores.s[m][n][i] = 0;
}

// One depth step of scores += Q Kᵀ. first: of queries.
template <Key K>
__device__ __forceinline__ void multiply_keys_step(Scores<K>& scores, const Queries<K>& queries, uint32_t first,
                                                   const KeyOperands<K>& keys, int32_t step) {
  using Operands = KeyOperands<K>;
  uint32_t a[K.m_tiles][4];
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m) queries.get(a[m], first, m, step);
#pragma unroll
  for (int32_t block = 0; block < K.block_kv / Operands::kKeys; ++block) {
    uint32_t b[Operands::kTiles][2];
    keys.get(b, block, step);
#pragma unroll
    for (int32_t i = 0; i < Operands::kTiles; ++i)
#pragma unroll
      for (int32_t m = 0; m < K.m_tiles; ++m)
        mma<Half<K>>(scores.s[m][block * Operands::kTiles + i], a[m], b[i][0], b[i][1]);
  }
}

template <Key K>
__device__ __forceinline__ void multiply_keys(Scores<K>& scores, const Queries<K>& queries, uint32_t keys_at) {
  const KeyOperands<K> keys(forget(keys_at));  // addresses are not kept between products
  const uint32_t first = queries.first();
  clear<K>(scores);
#pragma unroll
  for (int32_t step = 0; step < Queries<K>::kSteps; ++step) multiply_keys_step<K>(scores, queries, first, keys, step);
}

// Values of 16 keys as two tiles of eight elements each; FP8: of 32 keys, two such operands.
template <Key K>
class ValueOperands {
 public:
  static constexpr int32_t kChunks = K.d_vo * size_of(K.kv) / 16;
  static constexpr int32_t kKeys = kNarrow<K> ? 32 : 16, kSteps = kKeys / 16;

  __device__ __forceinline__ static uint32_t offset(int32_t lane) {
    return uint32_t(kNarrow<K> ? Swizzle<kChunks>::at(lane, 0) : Swizzle<kChunks>::at(lane % 16, lane / 16));
  }
  __device__ __forceinline__ explicit ValueOperands(uint32_t first) : first_(first) {}
  // columns: 16 elements. b[step][tile].
  __device__ __forceinline__ void get(uint32_t (&b)[kSteps][2][2], int32_t block, int32_t columns) const {
    const int32_t chunk = kNarrow<K> ? columns : 2 * columns;
    uint32_t r[4];
    load_matrices_transposed(r, Swizzle<kChunks>::from(first_, chunk) + uint32_t(block * kKeys * kChunks * 16));
#pragma unroll
    for (int32_t i = 0; i < 4; ++i) {
      if constexpr (kNarrow<K>)
        widen_even_odd<Half<K>, type_of<K.kv>>(r[i], b[i / 2][0][i % 2], b[i / 2][1][i % 2]);
      else
        b[0][i / 2][i % 2] = r[i];
    }
  }

 private:
  uint32_t first_;
};

// A block's weights as left operands; the scores' layout is that of two halves of one.
template <Key K>
struct Weights {
  uint32_t a[K.block_kv / 16][K.m_tiles][4];

  Weights() = default;
  __device__ __forceinline__ explicit Weights(const Scores<K>& w) {
#pragma unroll
    for (int32_t step = 0; step < K.block_kv / 16; ++step)
#pragma unroll
      for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
        for (int32_t i = 0; i < 4; ++i) {
          const float(&s)[4] = w.s[m][2 * step + i / 2];
          a[step][m][i] = narrow2<Half<K>>(s[i % 2 * 2], s[i % 2 * 2 + 1]);
        }
  }
};

// out += P V is done in so many steps, each of some keys and 16 columns.
template <Key K>
inline constexpr int32_t kValueSteps = K.block_kv / ValueOperands<K>::kKeys*(K.d_vo / 16);

template <Key K>
__device__ __forceinline__ void multiply_values_step(Outputs<K>& out, const Weights<K>& weights,
                                                     const ValueOperands<K>& values, int32_t at) {
  using Operands = ValueOperands<K>;
  const int32_t block = at / (K.d_vo / 16), columns = at % (K.d_vo / 16);
  uint32_t b[Operands::kSteps][2][2];
  values.get(b, block, columns);
#pragma unroll
  for (int32_t step = 0; step < Operands::kSteps; ++step)
#pragma unroll
    for (int32_t i = 0; i < 2; ++i)
#pragma unroll
      for (int32_t m = 0; m < K.m_tiles; ++m)
        mma<Half<K>>(out.o[m][2 * columns + i], weights.a[block * Operands::kSteps + step][m], b[step][i][0],
                     b[step][i][1]);
}

template <Key K>
__device__ __forceinline__ void multiply_values(Outputs<K>& out, const Weights<K>& weights, uint32_t values_at) {
  const ValueOperands<K> values(forget(values_at));
#pragma unroll
  for (int32_t at = 0; at < kValueSteps<K>; ++at) multiply_values_step<K>(out, weights, values, at);
}

// Whether registers hold the scores of the next block while this one's weights are used. Below sm_90, and where sums
// are kept while some of their columns are written, they would spill.
template <Key K>
inline constexpr bool kByTurns = K.block_kv < K.tile_kv&& K.d_vo <= (kArch >= 90 && kLastColumns<K> == 0 ? 128 : 64);

// A block's values and the next one's keys by turns: no product waits for the one before.
template <Key K>
__device__ __forceinline__ void multiply_both(Outputs<K>& out, const Weights<K>& weights, uint32_t values_at,
                                              Scores<K>& scores, const Queries<K>& queries, uint32_t keys_at) {
  constexpr int32_t kSteps = Queries<K>::kSteps;
  const ValueOperands<K> values(forget(values_at));
  const KeyOperands<K> keys(forget(keys_at));
  const uint32_t first = queries.first();
  clear<K>(scores);
#pragma unroll
  for (int32_t step = 0; step < kSteps; ++step) {
    multiply_keys_step<K>(scores, queries, first, keys, step);
#pragma unroll
    for (int32_t at = step * kValueSteps<K> / kSteps; at < (step + 1) * kValueSteps<K> / kSteps; ++at)
      multiply_values_step<K>(out, weights, values, at);
  }
}

}  // namespace fulmen::cuda::batch_attention
