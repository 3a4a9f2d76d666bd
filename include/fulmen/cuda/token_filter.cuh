// SPDX-License-Identifier: Apache-2.0
// token_filter: finds the cut as sample does, then writes the row from where it was kept. Launched by
// src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/token_filter.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_short.cuh>
#include <fulmen/cuda/tile/token_write.cuh>

namespace fulmen::cuda::token_filter {

template <Key K>
__device__ __noinline__ void list_hard_row(uint32_t k, uint32_t low_key, uint32_t high_key) {
  const TokenSlice<K> slice = TokenSearch<K, TokenWeight<K.logits>>::shared().slice;
  TokenTeam<K.threads, K.cluster> team;
  team.sync();
  list_largest<K>(team, slice, k, low_key, high_key, false);
}

// What the filter keeps, as the search's cut, known to every CTA of the team.
template <Key K, class Team>
__device__ __forceinline__ void find_cut(Team& team, uint32_t lane_key, uint32_t top_key) {
  using Search = TokenSearch<K, TokenWeight<K.logits>>;
  const RowFilter& f = RowFilter::shared<Team>();
  bool listed = false;
  {
    const TokenSlice<K> slice = Search::shared().slice;
    if (f.keeps_first()) return Search::set_cut({top_key, first_of(team, slice, lane_key, top_key) + 1});
    if constexpr (K.path != TokenPath::kSearch) {
      TokenShort<K> few{team, slice, false};
      listed = f.top_k != kAllTokens && few.counts(team, f.top_k) && few.serves(team, f, slice.n) &&
               few.run(few.sample(f.top_k), f.top_k, 1, float_of(least_key<K.logits>(top_key)), {});
    }
  }
  if constexpr (K.path == TokenPath::kList) {
    if (!listed) list_hard_row<K>(uint32_t(f.top_k), least_key<K.logits>(top_key), top_key);
  } else {
    if (!listed) return search_row<K, Team>(false);
  }
  if constexpr (K.path != TokenPath::kSearch) {
    TokenControl& c = team.control();
    if (team.rank() == 0) {
      const uint64_t last = last_of_list<Team>(Search::shared().weight);
      if (threadIdx.x == 0) {
        const TokenCut cut = last == kWholeList ? Search::shared().cut : cut_after(last, f.keep_ties);
        team.tell_all(&c.key, cut.key), team.tell_all(&c.end, cut.end);
      }
    }
    team.sync();
    Search::set_cut({c.key, c.end});
  }
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<K.logits>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  using Search = TokenSearch<K, Weight>;
  X* out = static_cast<X*>(const_cast<void*>(p.out.data)) + row * p.out.stride;
  RowFilter& f = RowFilter::shared<Team>();
  TokenTop<K> top;
  {
    const TokenSlice<K> slice(team, static_cast<const X*>(p.input.data) + row * p.input.stride, p.input.n);
    slice.depart();
    if (threadIdx.x == 0) f = RowFilter::of(p.filter, 1, row, p.input.n);
    clear_list(team);
    team.arrive();
    slice.arrive();
    team.wait();
    top.read(team, slice);
    allow_successor();
    const int32_t status = judge<K.logits>(top.key, f.status);
    if (team.rank() == 0 && threadIdx.x == 0) p.status.set(row, status);
    if (status == TokenStatus::kNan || status == TokenStatus::kEmpty) {
      const float fill = status == TokenStatus::kNan ? bit_cast<float>(0x7fffffffu) : K.logits ? -kInfinity : 0.0f;
      return fill_row(slice, out, fill);
    }
    begin_search<K>(slice, Weight::of(float_of(top.key), f.inv_temperature), top.key, f.keep_ties);
  }
  find_cut<K>(team, top.lane_key, top.key);
  const TokenSlice<K> slice = Search::shared().slice;
  const Weight weight = Search::shared().weight;
  const KeptWeight<Weight> kept(weight, Search::shared().cut, least_weight(f, weight));
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
