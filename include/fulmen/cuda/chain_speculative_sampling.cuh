// SPDX-License-Identifier: Apache-2.0
// chain_speculative_sampling: a thread per drafted token tests it; then the team draws the token that ends the chain
// from the difference of two rows, made as they are read. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/chain_speculative_sampling.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_draw.cuh>
#include <fulmen/cuda/tile/token_filter_row.cuh>

namespace fulmen::cuda::chain_speculative_sampling {

struct Chain {
  int32_t emitted = 0, accepted = 0;
  bool bad_token = false;
};

__device__ __forceinline__ int64_t token_at(const Params& p, int64_t row, int32_t i) {
  return p.tokens.ids[row * p.tokens.stride + i * p.token_step];
}

template <class Team>
__device__ __forceinline__ Chain test_tokens(Team& team, const Params& p, int64_t row) {
  uint32_t accepted = 0, bad = 0, refused = 0;  // refused: complement of the first one's place
  for (int32_t i = int32_t(threadIdx.x); i < p.num_draft; i += Team::kThreads) {
    const int64_t token = token_at(p, row, i);
    const bool in_range = token >= 0 && token < p.vocab_size;
    bool accepts = false;
    if (in_range) {
      const double u = random_of(p.random, row, i, 0);
      accepts = u * double(p.draft[row * p.draft_stride + i * p.draft_step + token]) <
                double(p.target[row * p.target_stride + i * p.target_step + token]);
    }
    bad |= !in_range, accepted += accepts;
    if (!accepts) refused = math::max(refused, ~uint32_t(i));
  }
  refused = team.max(refused);
  return {math::min(p.num_draft, int32_t(math::min(~refused, 0x7fffffffu))), int32_t(team.sum(accepted)),
          team.max(bad) != 0};
}

__device__ __forceinline__ void write_chain(const Params& p, int64_t row, const Chain& c, int64_t last,
                                            int32_t status) {
  for (int32_t i = 0; i <= p.num_draft; ++i)
    p.out.set(row * p.out.stride + i * p.out_step, i < c.emitted ? token_at(p, row, i) : i == c.emitted ? last : -1);
  if (p.accepted != nullptr) p.accepted[row * p.accepted_stride] += c.accepted;
  if (p.emitted != nullptr) p.emitted[row * p.emitted_stride] += c.emitted;
  p.status.set(row, c.bad_token ? TokenStatus::kBadParameter : status);
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<false>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  const Chain chain = test_tokens(team, p, row);
  const float* target = p.target + row * p.target_stride + chain.emitted * p.target_step;
  const float* draft = p.draft + row * p.draft_stride + chain.emitted * p.draft_step;
  TokenSlice<K, true> slice(team, target, p.vocab_size, chain.emitted == p.num_draft ? nullptr : draft);
  TokenTop<K> top;
  // Equal distributions leave no residual; the refusal was a draft of probability 0, so any sample of target is right.
  for (int32_t attempt = 0; attempt < 2; ++attempt) {
    slice.depart();
    team.sync();
    slice.arrive();
    top = {};
    top.read(team, slice);
    if (judge<false>(top.key, 0) != TokenStatus::kEmpty || slice.minus == nullptr) break;
    slice.minus = nullptr;
  }
  allow_successor();
  const int32_t status = judge<false>(top.key, TokenStatus::kOk);
  const auto write = [&](int64_t token) { write_chain(p, row, chain, token, status); };
  if (status == TokenStatus::kNan || status == TokenStatus::kEmpty) {
    if (team.rank() == 0 && threadIdx.x == 0) write(0);
    return;
  }
  const double u = random_of(p.random, row, chain.emitted, 1);
  const Weight weight = Weight::of(float_of(top.key), 1);
  const auto kept = [&](float x, int32_t) { return weight(x); };
  sum_blocks(team, slice, kept);
  draw_along(team, slice, kept, u, write);
}

}  // namespace fulmen::cuda::chain_speculative_sampling
