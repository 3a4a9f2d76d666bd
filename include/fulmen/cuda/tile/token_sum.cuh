// SPDX-License-Identifier: Apache-2.0
// What a row's tokens weigh together.
#pragma once
#include <fulmen/cuda/tile/token_list.cuh>

namespace fulmen::cuda {

// A token's weight, or 0 if it is dropped.
template <class Weight>
struct KeptWeight {
  Weight weight;
  float value;  // of the cut
  uint32_t end;
  float least;
  __device__ __forceinline__ KeptWeight(const Weight& w, TokenCut cut, float l)
      : weight(w), value(float_of(cut.key)), end(cut.end), least(l) {}
  __device__ __forceinline__ float operator()(float x, int32_t i) const {
    const float w = weight(x);
    return w >= least && (x > value || (x == value && uint32_t(i) < end)) ? w : 0;
  }
};

// The sums of weight(value, place) over the blocks, known to every CTA of the team. One team barrier inside.
template <class Team, class Slice, class Weight>
__device__ __forceinline__ void sum_blocks(Team& team, const Slice& slice, const Weight& weight) {
  uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  slice.for_blocks([&](int32_t b) {
    float sum = 0;
    slice.template for_vectors<1>(b, [&](int32_t i, const float(&v)[4]) {
#pragma unroll
      for (int32_t j = 0; j < 4; ++j) sum += weight(v[j], i + j);
    });
    team.tell_all_by_warp(blocks + slice.of_row(b), add_warp(fixed(sum)));
  });
  team.sync();
}

// The sums of all weights and the largest key from one read: each block is weighed below its own largest value first.
// The answer: the row's largest key, known to every CTA of the team; 0, and no sums, where the row is out of the
// ordinary: NaNs, infinities, nothing that weighs anything. A team barrier inside; at the end one of the CTA, after a 0
// of the team.
template <TokenKey K, class Team>
__device__ __forceinline__ uint32_t sum_once(Team& team, const TokenSlice<K>& slice, float inv_temperature) {
  using Weight = TokenWeight<K.logits>;
  uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  uint32_t lane_key = kLeastKey;
  Weight weight = Weight::of(0, inv_temperature);
  slice.for_values([&](int32_t b, const float(&v)[kTokenSteps][4]) {
    float top = K.logits ? kLeastFinite : 0, sum = 0;
#pragma unroll
    for (int32_t i = 0; i < 4 * kTokenSteps; ++i) top = fmaxf(top, v[i / 4][i % 4]);
    const uint32_t key = max_warp(key_of(top));
    if (K.logits)
      weight.top = float_of(key);
    else
      weight = Weight::of(float_of(key), 1);
#pragma unroll
    for (int32_t i = 0; i < 4 * kTokenSteps; ++i) sum += weight.below_top(v[i / 4][i % 4]);
#pragma unroll 1
    for (int32_t mask = 1; mask < 32; mask *= 2) sum += shuffle_xor(sum, mask);
    lane_key = math::max(lane_key, sum == sum ? key : kNanKey);
    team.tell_all_by_warp(blocks + slice.of_row(b), uint64_t(key) << 32 | bit_cast<uint32_t>(sum));
  });
  const uint32_t top_key = team.team_max(lane_key);
  if (top_key >= kInfiniteKey || top_key <= (K.logits ? key_of(kLeastFinite) : 0x80000000u)) {
    team.sync();  // before the scratch is another object's
    return 0;
  }
  weight = Weight::of(float_of(top_key), inv_temperature);
#pragma unroll 1
  for (int32_t b = int32_t(threadIdx.x); b < slice.row_blocks; b += Team::kThreads) {
    const float top = float_of(uint32_t(blocks[b] >> 32)), sum = bit_cast<float>(uint32_t(blocks[b]));
    const float share = K.logits ? weight(top) : weight.factor / Weight::of(top, 1).factor;
    blocks[b] = fixed(sum * share);
  }
  sync_cta();
  return top_key;
}

// Their sum, the same in all threads.
template <class Team, class Slice>
__device__ __forceinline__ uint64_t total_of(Team& team, const Slice& slice) {
  const uint64_t* blocks = Team::template shared<uint64_t>(TokenLayout::kBlocks);
  uint64_t total = 0;
#pragma unroll 1
  for (int32_t b = int32_t(threadIdx.x); b < slice.row_blocks; b += Team::kThreads) total += blocks[b];
  return team.sum(total);
}

}  // namespace fulmen::cuda
