// SPDX-License-Identifier: Apache-2.0
// sample: a top_k that a list can hold goes through the leader's list, no filter at all through the sums of the blocks;
// other filters search the row for their cut. K.path: which of that a kernel holds. Launched by src/cuda/sampling.cc.
#pragma once
#include <fulmen/cuda/sample.h>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/tile/token_draw.cuh>
#include <fulmen/cuda/tile/token_short.cuh>

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

template <Key K>
__device__ __forceinline__ const type_of<K.x>* row_of(const Params& p) {
  const int64_t row = TokenTeam<K.threads, K.cluster>::control().input_row;
  return static_cast<const type_of<K.x>*>(p.input.data) + row * p.input.stride;
}

// The leader's list of n <= kFew, in any order: what the filter keeps of it, and a draw among that. Instead of sorting,
// each entry adds up what comes before it, by as many lanes as there are for it.
inline constexpr int32_t kFew = 128;
template <class Team, class Weight, class Write>
__device__ __forceinline__ void sample_few(Team& team, int32_t n, const Weight& weight, double u, const Write& write) {
  const RowFilter& f = RowFilter::shared<Team>();
  TokenControl& c = team.control();
  const uint64_t* list = TokenList<Team>::entries();
  uint64_t* masses = TokenList<Team>::local();
  if (threadIdx.x == 0) c.key = c.end = 0;
  if (int32_t(threadIdx.x) < n) masses[threadIdx.x] = fixed(weight(float_of(key_of_entry(list[threadIdx.x]))));
  sync_cta();
  int32_t log_share = 5;
  while (n << log_share > Team::kThreads) --log_share;
  const int32_t share = 1 << log_share, i = int32_t(threadIdx.x) >> log_share, k0 = int32_t(threadIdx.x) & (share - 1);
  const bool mine = i < n;
  const bool speaks = mine && k0 == 0;
  const uint64_t entry = mine ? list[i] : 0, mass = mine ? masses[i] : 0;
  const auto sum_before = [&](const auto& before, uint32_t& rank) {
    uint64_t sum = 0;
    rank = 0;
#pragma unroll 2
    for (int32_t k = k0; k < n; k += share)
      if (before(list[k])) sum += masses[k], ++rank;
#pragma unroll 1
    for (int32_t mask = 1; mask < share; mask *= 2) sum += shuffle_xor(sum, mask), rank += shuffle_xor(rank, mask);
    return sum;
  };
  uint32_t rank;
  const uint64_t before = sum_before([&](uint64_t e) { return e < entry; }, rank);
  bool kept = mine && int64_t(rank) < f.top_k;
  if (f.keep_ties) {
    if (mine && (int64_t(rank) == f.top_k - 1 || int32_t(rank) == n - 1)) atomic_max(&c.key, key_of_entry(entry));
    sync_cta();
    kept = mine && key_of_entry(entry) >= c.key;
  }
  if (f.top_p < 1) {
    const double goal = double(f.top_p) * mass_of(team.sum(speaks && kept ? mass : 0));
    kept = kept && (rank == 0 || mass_of(before) < goal);
    if (f.keep_ties) {
      if (kept) atomic_max(&c.end, ~key_of_entry(entry));
      sync_cta();
      kept = mine && key_of_entry(entry) >= math::max(c.key, ~c.end);
    }
  }
  if (f.min_p > 0) kept = kept && (rank == 0 || weight(float_of(key_of_entry(entry))) >= least_weight(f, weight));
  const uint64_t total = team.sum(speaks && kept ? mass : 0);  // all have read the masses
  if (speaks) masses[i] = kept ? mass : 0;
  sync_cta();
  const uint64_t target = target_of(u, total);
  const uint64_t sum = sum_before([&](uint64_t e) { return place_of_entry(e) < place_of_entry(entry); }, rank);
  if (speaks && kept && sum <= target && target < sum + mass) write(int64_t(place_of_entry(entry)));
}

// Draws among all of the leader's list, in the order of places.
template <Key K, class Weight>
__device__ __forceinline__ void draw_listed(int32_t n, const Weight& weight, const Writer& write) {
  using Team = TokenTeam<K.threads, K.cluster>;
  uint64_t* list = TokenList<Team>::entries();
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads) list[i] = list[i] << 32 | list[i] >> 32;
  const ListMass<Weight> mass{Measure::kWeightByPlace, weight};
  const uint64_t target = target_of(Team::control().u, TokenList<Team>::mass_of_list(n, mass));
  const uint64_t entry = TokenList<Team>::reach(n, target + 1, mass);
  if (threadIdx.x == 0) write(int64_t(entry >> 32));
}

// The leader's list holds all that can matter.
template <Key K>
__device__ __noinline__ void sample_listed(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<K.logits>;
  Team team;
  const RowFilter& f = RowFilter::shared<Team>();
  TokenControl& c = team.control();
  const int64_t row = c.row;
  int32_t n = int32_t(c.list_count);
  uint32_t top = 0;
#pragma unroll 1
  for (int32_t i = int32_t(threadIdx.x); i < n; i += Team::kThreads)
    top = math::max(top, key_of_entry(TokenList<Team>::entries()[i]));
  top = team.max(top);
  const Writer write{p, row, judge<K.logits>(top, f.status)};
  if (write.status == TokenStatus::kNan) {
    if (threadIdx.x == 0) write(0);
    return;
  }
  const Weight weight = Weight::of(float_of(top), f.inv_temperature);
  const float least = f.min_p > 0 && !(f.top_p < 1) ? least_weight(f, weight) : 0;
  if (n > kFew && (f.top_k < n || least > 0)) {
    const uint32_t low = f.top_k < n ? TokenList<Team>::bound(n, uint32_t(f.top_k)) : 0;
    n = TokenList<Team>::compact(team, n, [&](uint64_t entry) {
      return key_of_entry(entry) >= low && weight(float_of(key_of_entry(entry))) >= least;
    });
    if (threadIdx.x == 0) c.list_count = uint32_t(n);
    sync_cta();
  }
  if (n <= kFew) return sample_few(team, n, weight, c.u, write);
  const uint64_t last = last_of_list<Team>(weight);
  const float kept = least_weight(f, weight);
  n = TokenList<Team>::compact(team, int32_t(c.list_count), [&](uint64_t entry) {
    return entry <= last && weight(float_of(key_of_entry(entry))) >= kept;
  });
  draw_listed<K>(n, weight, write);
}

// The draw after a search or a sum; on its own, so that it shares no registers with what comes before.
template <Key K>
__device__ __noinline__ void draw_searched(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<K.logits>;
  using Search = TokenSearch<K, Weight>;
  Team team;
  const RowFilter& f = RowFilter::shared<Team>();
  const Search& search = Search::shared();
  const Weight weight = search.weight;
  const TokenSlice<K> slice = search.slice;
  draw_along(team, slice, KeptWeight<Weight>(weight, search.cut, least_weight(f, weight)), team.control().u,
             Writer{p, team.control().row, judge<K.logits>(key_of(weight.top), f.status)});
}

// No filter: one read, of which the blocks' sums are left. False: the row is out of the ordinary.
template <Key K>
__device__ __noinline__ bool sum_unfiltered(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  Team team;
  const RowFilter& f = RowFilter::shared<Team>();
  if (f.keeps_first() || f.status != TokenStatus::kOk) return false;
  const TokenSlice<K> slice(team, row_of<K>(p), p.input.n);
  const uint32_t top_key = sum_once<K>(team, slice, f.inv_temperature);
  if (top_key == 0) return false;
  allow_successor();
  begin_search<K>(slice, TokenWeight<K.logits>::of(float_of(top_key), f.inv_temperature), top_key, false);
  return true;
}

// Whether a row may have to be searched for its cut.
template <Key K>
inline constexpr bool kCuts = K.path == TokenPath::kAny || K.path == TokenPath::kSearch;

// A filter that needs all of the row: finds what it keeps. False: the row has its token already.
template <Key K>
__device__ __noinline__ bool sample_searched(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  using Weight = TokenWeight<K.logits>;
  Team team;
  const RowFilter& f = RowFilter::shared<Team>();
  TokenTop<K> top;
  {
    const TokenSlice<K> slice(team, row_of<K>(p), p.input.n);
    top.read(team, slice);
    allow_successor();
    const int32_t status = judge<K.logits>(top.key, f.status);
    uint32_t first = 0;
    const bool stops = status == TokenStatus::kNan || status == TokenStatus::kEmpty;
    if (!stops && f.keeps_first()) first = first_of(team, slice, top.lane_key, top.key);
    if (stops || f.keeps_first()) {
      if (team.rank() == 0 && threadIdx.x == 0) Writer{p, team.control().row, status}(first);
      return false;
    }
    const Weight weight = Weight::of(float_of(top.key), f.inv_temperature);
    begin_search<K>(slice, weight, top.key, f.keep_ties);
    if constexpr (!kCuts<K>)
      sum_blocks(team, slice,
                 KeptWeight<Weight>(weight, {least_key<K.logits>(top.key), kAllTies}, least_weight(f, weight)));
  }
  if constexpr (kCuts<K>) search_row<K, Team>(true);
  return true;
}

// The tokens that can matter to a small top_k or a min_p, in the leader's list. False: it cannot hold them.
// Every way of a row must wait for its team first; a number top_k does so while the sample is on its way.
template <Key K>
__device__ __forceinline__ bool list_row(const Params& p, const TokenSlice<K>& slice) {
  using Team = TokenTeam<K.threads, K.cluster>;
  Team team;
  const RowFilter& f = RowFilter::shared<Team>();
  TokenShort<K> few{team, slice, false};
  float top = 0;
  bool serves = true;
  if constexpr (K.path == TokenPath::kList) {
    serves = few.counts(team, p.filter.top_k.value) || p.input.n <= kTokenList;
    if (serves) top = few.sample(p.filter.top_k.value);
    team.wait();
  } else {
    team.wait();
    serves = few.serves(team, f, p.input.n);
    if (serves) top = few.sample(f.top_k);
  }
  return serves && few.run(top, f.top_k, 1, float_of(least_key<K.logits>(0)), LeastValue<K.logits>(f));
}

// The same where more tokens reach the bound than the list holds: the k largest themselves, by halving the range of
// keys. False: the row has its token already.
template <Key K>
__device__ __noinline__ bool list_hard_row(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  Team team;
  const RowFilter& f = RowFilter::shared<Team>();
  const TokenSlice<K> slice(team, row_of<K>(p), p.input.n);
  TokenTop<K> top;
  top.read(team, slice);
  const int32_t status = judge<K.logits>(top.key, f.status);
  if (status == TokenStatus::kNan || status == TokenStatus::kEmpty) {
    if (team.rank() == 0 && threadIdx.x == 0) Writer{p, team.control().row, status}(0);
    return false;
  }
  list_largest<K>(team, slice, uint32_t(f.top_k), least_key<K.logits>(0), top.key, false);
  return true;
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  using Team = TokenTeam<K.threads, K.cluster>;
  Team team;
  const int64_t row = int64_t(blockIdx.x / team.size());
  wait_for_predecessor();
  const int64_t input_row = p.indices.ids.data == nullptr ? row : p.indices.of(row);
  if (input_row < 0 || input_row >= p.num_rows) {
    if (team.rank() == 0 && threadIdx.x == 0) Writer{p, row, TokenStatus::kBadParameter}(0);
    return;
  }
  const TokenSlice<K> slice(team, static_cast<const type_of<K.x>*>(p.input.data) + input_row * p.input.stride,
                            p.input.n);
  slice.depart();
  if (threadIdx.x == 0) {
    RowFilter::shared<Team>() = RowFilter::of(p.filter, K.logits ? p.temperature.of(row) : 1.0f, row, p.input.n);
    team.control().row = row, team.control().input_row = input_row;
  }
  if (threadIdx.x == 32) team.control().u = random_of(p.random, row, 0, 0);
  clear_list(team);
  team.arrive();
  slice.arrive();
  bool draws = false;
  if constexpr (K.path == TokenPath::kSum) {
    team.wait();  // all CTAs of the team are there
    draws = sum_unfiltered<K>(p) || sample_searched<K>(p);
  } else if constexpr (K.path == TokenPath::kSearch) {
    team.wait();
    draws = sample_searched<K>(p);
  } else {
    bool listed = list_row<K>(p, slice);
    if constexpr (K.path == TokenPath::kList) listed = listed || list_hard_row<K>(p);
    if (listed) {
      allow_successor();
      if (team.rank() == 0) sample_listed<K>(p);
    } else if constexpr (K.path != TokenPath::kList) {
      draws = sample_searched<K>(p);
    }
  }
  if constexpr (K.path != TokenPath::kList)
    if (draws) draw_searched<K>(p);
}

}  // namespace fulmen::cuda::sample
