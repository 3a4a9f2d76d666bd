// SPDX-License-Identifier: Apache-2.0
// Scores of one block become weights: the variant's say about keys and logits, then one online-softmax step. A row's
// maximum is only moved when a lane's weights of the row add up to more than 256 (f16 holds that many), so that it is
// rarely looked for and outputs are rarely rescaled; each row decides by its own scores alone.
#pragma once
#include <fulmen/attention/variant.h>
#include <fulmen/cuda/attention/products.cuh>

namespace fulmen::cuda::batch_attention {

inline constexpr float kMostWeight = 256;
inline constexpr float kLowest = -3.40282347e38f;  // a maximum of no key: unlike -inf, its differences are numbers

// Of a lane's rows g and g + 8 of each tile of 16. d: this lane's share of the sum.
template <Key K>
struct States {
  float m[K.m_tiles][2], d[K.m_tiles][2];
};

// The weight of a logit is exp2 of it times this, which is above 0: times -inf it must not be NaN. A negative scale's
// sign goes into Q.
template <class Variant>
__device__ __forceinline__ float scale_of(const Variant& variant) {
  return fmaxf(fabsf(variant.scale_log2()), 1e-37f);
}
template <class Variant>
__device__ __forceinline__ float sign_of(const Variant& variant) {
  return variant.scale_log2() < 0 ? -1.f : 1.f;
}
// Whether the variant must be asked about every key.
template <class Variant>
__device__ __forceinline__ bool asks(const Variant& variant) {
  return variant.has_mask() || variant.changes_logits() || !Variant::kSoftmax;
}

// Tile [first, first + tile_kv): scores of keys that a row does not see become -inf. end: of the keys being walked.
template <Key K>
__device__ __forceinline__ void mask_scores(Scores<K>& scores, const RowInfo* rows, int32_t first, int32_t end,
                                            int32_t lane) {
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      const RowInfo row = rows[m * 16 + half * 8 + lane / 4];
      const int32_t stop = (row.end < end ? row.end : end) - first - lane % 4 * 2;
      const int32_t start = row.begin - first - lane % 4 * 2;
#pragma unroll
      for (int32_t n = 0; n < Scores<K>::kTiles; ++n)
#pragma unroll
        for (int32_t i = 0; i < 2; ++i) {
          float& x = scores.s[m][n][half * 2 + i];
          x = n * 8 + i >= start && n * 8 + i < stop ? x : -kInfinity;
        }
    }
}

// The same for variants that ask about keys or change logits; weights instead of scores where there is no softmax.
// Eight keys at a time, which then make room for the next: the variant's code stands here once, not once per key.
template <Key K, class Variant>
__device__ __forceinline__ void apply_variant(Scores<K>& scores, const Variant& variant, const Item& item,
                                              const RowInfo* rows, int32_t first, int32_t end, int32_t lane) {
  const float sign = sign_of(variant);
  const int32_t last_key = item.request.kv_len - 1;
#pragma unroll 1
  for (int32_t n = 0; n < Scores<K>::kTiles; ++n) {
#pragma unroll
    for (int32_t m = 0; m < K.m_tiles; ++m) {
      float now[4] = {scores.s[m][0][0], scores.s[m][0][1], scores.s[m][0][2], scores.s[m][0][3]};
#pragma unroll 1
      for (int32_t i = 0; i < 4; ++i) {
        const RowInfo info = rows[m * 16 + i / 2 * 8 + lane / 4];
        const attention::Row row{item.plan.request_idx, info.qo_idx,         info.qo_head,
                                 item.plan.kv_head,     item.request.qo_len, item.request.kv_len};
        const int32_t key = first + n * 8 + lane % 4 * 2 + i % 2, safe = key < last_key ? key : last_key;
        float x = now[0];
        if (variant.changes_logits()) x = variant.logit(row, safe, x * sign) * sign;
        if constexpr (!Variant::kSoftmax) x = variant.weight(row, safe, x * sign);
        bool sees = key >= info.begin && key < info.end && key < end;
        if (sees && variant.has_mask()) sees = variant.keep(row, key);
        now[0] = now[1], now[1] = now[2], now[2] = now[3];
        now[3] = sees ? x : Variant::kSoftmax ? -kInfinity : 0;
      }
#pragma unroll
      for (int32_t next = 0; next < Scores<K>::kTiles; ++next)
#pragma unroll
        for (int32_t i = 0; i < 4; ++i)
          scores.s[m][next][i] = next + 1 < Scores<K>::kTiles ? scores.s[m][(next + 1) % Scores<K>::kTiles][i] : now[i];
    }
  }
}

template <Key K>
__device__ __forceinline__ void rescale(Outputs<K>& out, const float (&factor)[K.m_tiles][2]) {
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t n = 0; n < Outputs<K>::kTiles; ++n)
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) out.o[m][n][i] *= factor[m][i / 2];
}

// Maxima of rows that some lane's sum of weights outgrew; outputs follow. False if none moves: then there is a NaN.
template <Key K>
__device__ __forceinline__ bool raise_maxima(const float (&sum)[K.m_tiles][2], const Scores<K>& scores,
                                             States<K>& states, Outputs<K>& out, float scale) {
  const uint32_t quad = 0xfu << (fresh_thread() % 32 / 4 * 4);
  float factor[K.m_tiles][2];
  bool any = false, had_keys = false;
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      float top = -kInfinity;
#pragma unroll
      for (int32_t n = 0; n < Scores<K>::kTiles; ++n)
        top = fmaxf(top, fmaxf(scores.s[m][n][half * 2], scores.s[m][n][half * 2 + 1]));
      top = fmaxf(top, shuffle_xor(top, 1));
      top = fmaxf(top, shuffle_xor(top, 2)) * scale;
      float& max = states.m[m][half];
      const bool moves = (ballot(!(sum[m][half] <= kMostWeight)) & quad) != 0 && top > max;
      factor[m][half] = moves ? math::exp2(max - top) : 1;
      had_keys |= moves && max > kLowest;
      max = moves ? top : max;
      states.d[m][half] *= factor[m][half];
      any |= moves;
    }
  // Of rows without keys so far there is nothing to rescale. Kernels of four warps spill registers by that question.
  if (K.warps_q <= 4 || ballot(had_keys) != 0) rescale<K>(out, factor);
  return ballot(any) != 0;
}

// A block's weights and each row's sum of them; true where this lane's outgrew the maximum.
template <Key K>
__device__ __forceinline__ bool weigh(Weights<K>& weights, float (&sum)[K.m_tiles][2], const Scores<K>& scores,
                                      const States<K>& states, float scale) {
  bool outgrew = false;
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) {
      const float max = states.m[m][half];
#pragma unroll
      for (int32_t n = 0; n < Scores<K>::kTiles; ++n) {
        const float x = math::exp2(fmaf(scores.s[m][n][half * 2], scale, -max));
        const float y = math::exp2(fmaf(scores.s[m][n][half * 2 + 1], scale, -max));
        sum[m][half] = n == 0 ? x + y : sum[m][half] + x + y;
        weights.a[n / 2][m][n % 2 * 2 + half] = narrow2<Half<K>>(x, y);
      }
      outgrew |= !(sum[m][half] <= kMostWeight);
    }
  return outgrew;
}

// A block's weights, from its scores; where they outgrow a maximum, states and outputs follow and all is done again.
// no_maxima: no block came before this one, so that there is nothing to compare with.
template <Key K>
__device__ __forceinline__ void softmax_step(Weights<K>& weights, const Scores<K>& scores, States<K>& states,
                                             Outputs<K>& out, float scale, bool no_maxima) {
  float sum[K.m_tiles][2];
  if constexpr (K.warps_q > 1) {
#pragma unroll 1
    while (ballot(weigh<K>(weights, sum, scores, states, scale)) != 0)
      if (!raise_maxima<K>(sum, scores, states, out, scale)) break;
  } else {
#pragma unroll
    for (int32_t m = 0; m < K.m_tiles; ++m) sum[m][0] = sum[m][1] = kInfinity;
    bool moved = false;
#pragma unroll 1
    for (bool outgrew = no_maxima;;) {
      if (outgrew) moved = raise_maxima<K>(sum, scores, states, out, scale);
      const bool again = ballot(weigh<K>(weights, sum, scores, states, scale)) != 0;
      if (!again || (outgrew && !moved)) break;
      outgrew = true;
    }
  }
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
    for (int32_t half = 0; half < 2; ++half) states.d[m][half] += sum[m][half];
}

}  // namespace fulmen::cuda::batch_attention
