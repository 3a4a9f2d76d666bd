// SPDX-License-Identifier: Apache-2.0
// sample: one read of the row gives its largest value and those of its chunks. A top_k that a list can hold goes
// through the leader's list; other filters search the row for their cut. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/sample.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_draw.cuh>
#include <fulmen/cuda/tile/token_filter_row.cuh>

namespace fulmen::cuda::sample {

struct Writer {
  const Params& p;
  int64_t row;
  int32_t status;
  __device__ __forceinline__ void operator()(int64_t token) const {
    p.out.set(row * p.out.stride, token);
    p.status.set(row, status);
    if (p.valid != nullptr)
      p.valid[row * p.valid_stride] = status == TokenStatus::kOk || status == TokenStatus::kInfinite;
  }
};

// The leader draws among the first `len` entries of its sorted list.
template <class Team, class Weight, class Write>
__device__ __forceinline__ void draw_listed(Team& team, int32_t len, const Weight& weight, double u,
                                            const Write& write) {
  uint64_t* list = TokenList<Team>::entries();
  for (int32_t i = int32_t(threadIdx.x); i < len; i += Team::kThreads)
    list[i] = uint64_t(place_of_entry(list[i])) << 32 | bit_cast<uint32_t>(weight(float_of(key_of_entry(list[i]))));
  sync_cta();
  TokenList<Team>::sort(len);
  const int32_t each = (len + Team::kThreads - 1) / Team::kThreads, first = int32_t(threadIdx.x) * each;
  const auto mass = [&](int32_t i) { return fixed(bit_cast<float>(uint32_t(list[i]))); };
  uint64_t sum = 0, total;
  for (int32_t i = first; i < math::min(len, first + each); ++i) sum += mass(i);
  sum = team.scan(sum, total);
  const uint64_t target = target_of(u, total);
  for (int32_t i = first; i < math::min(len, first + each); ++i) {
    const uint64_t through = sum + mass(i);
    if (sum <= target && target < through) write(int64_t(list[i] >> 32));
    sum = through;
  }
}

// One CTA that reads the row from global memory: a bound on the k-th largest token from the row's first blocks is one
// of the whole row, so that a small top_k needs a single read. False: the list could not hold what reaches the bound,
// or the row is out of the ordinary.
template <Key K, class Team>
__device__ __forceinline__ bool list_stream(Team& team, const TokenSlice<K>& slice, TokenTop<K>& top,
                                            const RowFilter& f) {
  if (f.top_k > kMostListed || f.keeps_first() || (f.joint && f.top_p < 1)) return false;
  const int64_t blocks = math::max(int64_t(16), f.top_k * slice.n / (1000 * kTokenBlock) + 1);
  if (blocks * 4 > slice.num_blocks) return false;
  TokenSlice<K> head = slice;
  head.num_blocks = int32_t(blocks);
  top.read(team, head);
  const uint32_t low = math::max(top.bound(team, uint32_t(f.top_k)), least_key<K.logits>(0));
  gather(team, slice, {low, kNanKey}, {low, kAllTies}, false, false, [](float) { return 0.0f; });
  sync_cta();
  const uint32_t n = team.control().list_count;
  sync_cta();
  if (n > 0 && n <= uint32_t(kTokenList)) {
    TokenList<Team>::sort(int32_t(n));
    top.key = key_of_entry(TokenList<Team>::entries()[0]);
    if (top.key < kInfiniteKey) return true;
  }
  clear_list(team);
  top = {};
  return false;
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using X = type_of<K.x>;
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<K.logits>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  const bool speaks = team.rank() == 0 && threadIdx.x == 0;
  wait_for_predecessor();
  const int64_t input_row = p.indices.ids.data == nullptr ? row : p.indices.of(row);
  if (input_row < 0 || input_row >= p.num_rows) {
    if (speaks) Writer{p, row, TokenStatus::kBadParameter}(0);
    return;
  }
  const TokenSlice<K> slice(team, static_cast<const X*>(p.input.data) + input_row * p.input.stride, p.input.n);
  slice.depart();
  RowFilter& f = RowFilter::shared<Team>();
  if (threadIdx.x == 0) f = RowFilter::of(p.filter, K.logits ? p.temperature.of(row) : 1.0f, row, p.input.n);
  clear_list(team);
  team.arrive();
  slice.arrive();
  team.wait();  // all CTAs of the team are there
  TokenTop<K> top;
  Kept kept{{}, false};
  if constexpr (!K.cluster && !K.resident) kept.listed = list_stream<K>(team, slice, top, f);
  if (!kept.listed) top.read(team, slice);
  allow_successor();

  const Writer write{p, row, judge<K.logits>(top.key, f.status)};
  if (write.status == TokenStatus::kNan || write.status == TokenStatus::kEmpty) {
    if (speaks) write(0);
    return;
  }
  if (f.keeps_first()) {
    const uint32_t first = first_of(team, slice, top.lane_key, top.key);
    if (speaks) write(first);
    return;
  }
  const Weight weight = Weight::of(float_of(top.key), f.inv_temperature);
  if (!kept.listed) kept = search_row<K>(team, slice, top, weight, true);
  const double u = random_of(p.random, row, 0, 0);
  if (kept.listed) {
    if (team.rank() == 0) draw_listed(team, kept_of_list(team, weight), weight, u, write);
    return;
  }
  draw_along(team, slice, KeptWeight<Weight>(weight, kept.cut, least_weight(f, weight)), u, write);
}

}  // namespace fulmen::cuda::sample
