// SPDX-License-Identifier: Apache-2.0
// token_filter: finds the cut as sample does, then writes the row from where it was kept. Launched by
// src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/token_filter.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_filter_row.cuh>
#include <fulmen/cuda/tile/token_write.cuh>

namespace fulmen::cuda::token_filter {

// What the filter keeps, known to every CTA of the team.
template <Key K, class Team, class Slice, class Weight>
__device__ __forceinline__ TokenCut find_cut(Team& team, const Slice& slice, TokenTop<K>& top, const Weight& weight) {
  const RowFilter& f = RowFilter::shared<Team>();
  if (f.keeps_first()) return {top.key, first_of(team, slice, top.lane_key, top.key) + 1};
  const Kept kept = search_row<K>(team, slice, top, weight, false);
  if (!kept.listed) return kept.cut;
  TokenControl& c = team.control();
  if (team.rank() == 0) {
    const uint64_t last = TokenList<Team>::entries()[kept_of_list(team, weight) - 1];
    if (threadIdx.x == 0) {
      team.tell_all(&c.key, key_of_entry(last));
      team.tell_all(&c.end, f.keep_ties ? kAllTies : place_of_entry(last) + 1);
    }
  }
  team.sync();
  return {c.key, c.end};
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<K.logits>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  const TokenSlice<K> slice(team, static_cast<const X*>(p.input.data) + row * p.input.stride, p.input.n);
  X* out = static_cast<X*>(const_cast<void*>(p.out.data)) + row * p.out.stride;
  slice.depart();
  RowFilter& f = RowFilter::shared<Team>();
  if (threadIdx.x == 0) f = RowFilter::of(p.filter, 1, row, p.input.n);
  clear_list(team);
  team.arrive();
  slice.arrive();
  team.wait();
  TokenTop<K> top;
  top.read(team, slice);
  allow_successor();

  const int32_t status = judge<K.logits>(top.key, f.status);
  if (team.rank() == 0 && threadIdx.x == 0) p.status.set(row, status);
  if (status == TokenStatus::kNan || status == TokenStatus::kEmpty) {
    const float fill = status == TokenStatus::kNan ? bit_cast<float>(0x7fffffffu) : K.logits ? -kInfinity : 0.0f;
    return write_row<K.vec>(slice, out, [&](float, int32_t) { return fill; });
  }
  const Weight weight = Weight::of(float_of(top.key), f.inv_temperature);
  const KeptWeight<Weight> kept(weight, find_cut<K>(team, slice, top, weight), least_weight(f, weight));
  if constexpr (K.logits) {
    write_row<K.vec>(slice, out, [&](float x, int32_t i) {
      return kept.least <= weight(x) && (x > kept.value || (x == kept.value && uint32_t(i) < kept.end)) ? x
                                                                                                        : -kInfinity;
    });
  } else {
    sum_blocks(team, slice, kept);
    const float scale = float(1.0 / mass_of(total_of(team, slice)));
    write_row<K.vec>(slice, out, [&](float x, int32_t i) { return kept(x, i) * scale; });
  }
}

}  // namespace fulmen::cuda::token_filter
