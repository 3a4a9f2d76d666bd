// SPDX-License-Identifier: Apache-2.0
// A row's filter: its numbers, judged; and what it keeps of the leader's list or of the whole row.
#pragma once
#include <fulmen/cuda/tile/token_search.cuh>

namespace fulmen::cuda {

inline constexpr int64_t kAllTokens = 0x7fffffffffffffff;  // TokenFilter::kAll

struct RowFilter {
  int64_t top_k = kAllTokens;
  float top_p = 1, min_p = 0, inv_temperature = 1;
  bool joint = false, keep_ties = false;
  int32_t status = TokenStatus::kOk;  // kBadParameter, or nothing to say

  // In shared memory, as registers are short: written by one thread, read by all after a barrier.
  template <class Team>
  __device__ __forceinline__ static RowFilter& shared() {
    return *Team::template shared<RowFilter>(TokenLayout::kFilter);
  }
  __device__ __forceinline__ bool keeps_first() const { return top_k == 1 && !keep_ties; }
  __device__ __forceinline__ bool keeps_all() const { return top_k == kAllTokens && !(top_p < 1); }  // but for min_p
  __device__ __forceinline__ void take_first() {
    top_k = 1, top_p = 1, min_p = 0, inv_temperature = 1, keep_ties = false;
  }
  __device__ __forceinline__ static RowFilter of(const TokenFilterNumbers& f, float temperature, int64_t row,
                                                 int32_t n) {
    RowFilter r;
    r.top_k = f.top_k.of(row), r.top_p = f.top_p.of(row), r.min_p = f.min_p.of(row);
    r.joint = f.joint, r.keep_ties = f.keep_ties;
    r.inv_temperature = 1.0f / temperature;
    const bool good = r.top_k >= 1 && r.top_p >= 0 && r.top_p <= 1 && r.min_p >= 0 && r.min_p <= 1 &&
                      temperature >= 0 && temperature < kInfinity;
    if (!good) r.status = TokenStatus::kBadParameter;
    if (r.top_k >= n) r.top_k = kAllTokens;
    if (!good || !(r.inv_temperature < kInfinity)) r.take_first();
    if (r.top_p <= 0) r.top_k = 1;
    if (r.keeps_first()) r.take_first();
    return r;
  }
};

// What stops a row before it is filtered.
template <bool kLogits>
__device__ __forceinline__ int32_t judge(uint32_t top_key, int32_t parameters) {
  if (top_key == kNanKey) return TokenStatus::kNan;
  if (kLogits ? top_key == kLeastKey : top_key <= 0x80000000u) return TokenStatus::kEmpty;
  if (parameters != TokenStatus::kOk) return parameters;
  return top_key == kInfiniteKey ? TokenStatus::kInfinite : TokenStatus::kOk;
}
// The least key that may be kept at all.
template <bool kLogits>
__device__ __forceinline__ uint32_t least_key(uint32_t top_key) {
  return top_key == kInfiniteKey ? kInfiniteKey : kLogits ? kLeastKey + 1 : 0x80000001u;
}

// The least weight that min_p keeps. Exact for probabilities.
template <class Weight>
__device__ __forceinline__ float least_weight(const RowFilter& f, const Weight& weight) {
  if (!(f.min_p > 0) || weight.top == kInfinity) return 0;
  const double bound = double(f.min_p) * double(weight(weight.top));
  const float rounded = float(bound);
  return double(rounded) < bound ? bit_cast<float>(bit_cast<uint32_t>(rounded) + 1) : rounded;
}

inline constexpr uint64_t kWholeList = ~uint64_t(0);  // that entry, where none of the list is dropped

// The last entry that top_k and top_p keep of the leader's list, which holds all that top_k keeps; what follows it in
// the order may have left the list. Every thread of the leader calls.
template <class Team, class Weight>
__device__ __noinline__ uint64_t last_of_list(Weight weight) {
  using List = TokenList<Team>;
  const RowFilter& f = RowFilter::shared<Team>();
  Team team;
  TokenControl& c = team.control();
  int32_t n = int32_t(c.list_count);
  const uint64_t ties = f.keep_ties ? 0xffffffffu : 0;
  uint64_t last = kWholeList;
#pragma unroll 1
  for (int32_t step = 0; step < 2; ++step) {  // top_k, then top_p
    const bool counts = step == 0;
    if (counts ? f.top_k > n : !(f.top_p < 1)) continue;
    uint64_t goal = uint64_t(f.top_k);
    const ListMass<Weight> mass{counts ? Measure::kOne : Measure::kWeight, weight};
    if (!counts) {
      n = List::compact(team, n, [&](uint64_t entry) { return entry <= last; });
      goal = math::max(uint64_t(1), uint64_t(ceil(double(f.top_p) * double(List::mass_of_list(n, mass)))));
    }
    last = List::reach(n, goal, mass) | ties;
  }
  sync_cta();
  if (threadIdx.x == 0) c.list_count = uint32_t(n);
  sync_cta();
  return last;
}

// Begins the search of a row for what top_k and top_p keep.
template <TokenKey K, class Weight>
__device__ __forceinline__ void begin_search(const TokenSlice<K>& slice, const Weight& weight, uint32_t top_key,
                                             bool keep_ties) {
  TokenSearch<K, Weight>::begin(slice, weight, keep_ties, false, least_key<K.logits>(top_key), top_key);
  sync_cta();
}

// What top_k and top_p keep, as the search's cut; min_p is left to KeptWeight. Every CTA of the team calls. Where
// `sums`, the blocks' sums are of what is kept. The slice and its weights are the search's, as registers are short.
template <TokenKey K, class Team>
__device__ __noinline__ void search_row(bool sums) {
  using Weight = TokenWeight<K.logits>;
  using Search = TokenSearch<K, Weight>;
  const RowFilter& f = RowFilter::shared<Team>();
  Search& search = Search::shared();
  // one after the other: (1) the row's mass, (2) top_k, (3) the mass of that, (4) top_p, (5) the mass of what is kept
#pragma unroll 1
  for (int32_t step = 1; step <= 5; ++step) {
    const bool by_count = f.top_k != kAllTokens, by_mass = f.top_p < 1, row_mass = by_mass && (f.joint || !by_count);
    if (step == 2 || step == 4) {
      if (step == 4 ? !by_mass : !by_count) continue;
      uint32_t low = search.cut.key;
      uint64_t goal = uint64_t(f.top_k);
      if (step == 4) {  // values so unlikely that all of them together cannot decide
        const uint64_t total = Team::control().total;
        const Weight weight = search.weight;
        goal = math::max(uint64_t(1), uint64_t(ceil(double(f.top_p) * double(total))));
        const float share = float(mass_of(total) * (1 - double(f.top_p)) / (2.0 * double(search.slice.n)));
        const float value = K.logits ? weight.top + math::log2(share) / weight.factor : share / weight.factor;
        if (value > -kInfinity && value < weight.top) low = math::max(low, key_of(value));
      }
      sync_cta();
      if (threadIdx.x == 0) search.goal_is_mass = step == 4, search.goal = goal;
      Search::run(low, K.logits && step == 4);
    } else if (step == 5 ? sums : by_mass && row_mass == (step == 1)) {
      const Weight weight = search.weight;
      const TokenSlice<K> slice = search.slice;
      Team team;  // no scratch is in use across the barriers here
      sum_blocks(team, slice, KeptWeight<Weight>(weight, search.cut, step == 5 ? least_weight(f, weight) : 0));
      if (step == 5) break;
      const uint64_t total = total_of(team, slice);
      if (threadIdx.x == 0) team.control().total = total;
      team.sync();  // all have read the blocks
    }
  }
}

}  // namespace fulmen::cuda
