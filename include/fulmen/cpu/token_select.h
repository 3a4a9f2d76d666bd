// SPDX-License-Identifier: Apache-2.0
// Where a filter cuts: the shortest prefix of the order (value descending, index ascending) that reaches a number of
// tokens or a mass. No sort: every round measures count and mass above three pivots and goes on in one quarter.
// At most 22 rounds: 6 that halve values twice, where the range has both signs, then 16 that quarter the 2^32 floats.
#pragma once
#include <fulmen/cpu/token_rows.h>

FULMEN_CPU_BEGIN

struct Goal {
  int64_t count;       // reached at this many tokens
  double mass = kInf;  // or at this mass, whichever is first; infinite: the list may be without weights
};

// Keeps x > value, and x == value at positions of the list before tie_end.
struct Cut {
  float value = -kInf;
  int64_t tie_end = INT64_MAX;
};

// Floats in order as integers. -0 does not occur (gather).
inline int64_t key_of(float x) {
  const int32_t bits = bit_cast<int32_t>(x);
  return bits >= 0 ? bits : bits ^ 0x7fffffff;
}
inline float float_of(int64_t key) {
  const int32_t bits = int32_t(key);
  return bit_cast<float>(bits >= 0 ? bits : bits ^ 0x7fffffff);
}

// The tokens still in question: those with low < key <= high; what is above them does not reach the goal.
struct Open {
  TokenList list;
  const int32_t* position;  // in the list that is cut; null: the list is that list
  int64_t low, high;
  int64_t count_above = 0;
  double mass_above = 0;
};

struct Above {
  int64_t count[3] = {};
  double mass[3] = {};
};

template <bool kMass>
Above measure(const TokenList& list, const float (&pivot)[3]) {
  Above above;
  for (int64_t begin = 0; begin < list.n; begin += kBlock) {
    const int64_t end = std::min(list.n, begin + kBlock);
    F32 sum[3][kRegisters];
    for (auto& s : sum)
      for (F32& r : s) r = zeros();
    for (int64_t i = begin; i < end; i += kSumLanes) {
      for (int32_t k = 0; k < kRegisters; ++k) {
        const int64_t at = i + k * kLanes;
        const F32 x = load(list.x + at);
        const uint32_t valid = first_bits(end - at);
        for (int32_t j = 0; j < 3; ++j) {
          const uint32_t bits = bits_from_mask(splat(pivot[j]) < x) & valid;
          above.count[j] += __builtin_popcount(bits);
          if constexpr (kMass) sum[j][k] = sum[j][k] + select(mask_from_bits(bits), load(list.w + at), zeros());
        }
      }
    }
    if constexpr (kMass)
      for (int32_t j = 0; j < 3; ++j) above.mass[j] += double(reduce_sixteen(sum[j]));
  }
  return above;
}

// to = the tokens of `from` with low < x <= high, an absent bound being infinite. to may be from.list.
inline void narrow(Open& open, const float* low, const float* high, TokenList& to, bool mass) {
  const TokenList from = open.list;
  int64_t num = 0;
  for (int64_t i = 0; i < from.n; i += kLanes) {
    const F32 x = load(from.x + i), w = mass ? load(from.w + i) : zeros();
    const I32 position = open.position != nullptr ? load_ints(open.position + i) : iota(int32_t(i));
    uint32_t bits = first_bits(from.n - i);
    if (low != nullptr) bits &= bits_from_mask(splat(*low) < x);
    if (high != nullptr) bits &= ~bits_from_mask(splat(*high) < x);
    if (mass) compress(to.w + num, w, bits);
    compress(to.idx + num, position, bits);
    num += compress(to.x + num, x, bits);
  }
  to.n = num;
  open.list = to;
  open.position = to.idx;
}

inline int32_t position_of(const Open& open, int64_t i) {
  return open.position != nullptr ? open.position[i] : int32_t(i);
}

// All values are equal: how many are needed is a division.
inline Cut cut_ties(const Open& open, const Goal& goal) {
  double needed = double(std::min(goal.count - open.count_above, open.list.n));
  if (goal.mass < kInf) needed = std::min(needed, std::ceil((goal.mass - open.mass_above) / double(open.list.w[0])));
  const int64_t last = std::clamp<int64_t>(int64_t(needed), 1, open.list.n) - 1;
  return {open.list.x[0], position_of(open, last) + 1};
}

inline constexpr int64_t kFew = 32;

// Few values: sort them and walk.
inline Cut cut_few(const Open& open, const Goal& goal) {
  int32_t order[kFew];
  const int32_t n = int32_t(open.list.n);
  for (int32_t i = 0; i < n; ++i) {
    int32_t at = i;
    for (; at > 0 && open.list.x[order[at - 1]] < open.list.x[i]; --at) order[at] = order[at - 1];
    order[at] = i;
  }
  double mass = open.mass_above;
  int32_t i = 0;
  for (; i < n - 1; ++i) {  // the last one ends it whatever the rounding of the masses says
    if (goal.mass < kInf) mass += double(open.list.w[order[i]]);
    if (open.count_above + i + 1 >= goal.count || mass >= goal.mass) break;
  }
  return {open.list.x[order[i]], position_of(open, order[i]) + 1};
}

// Three pivots in (low, high): quarters of the values in the first rounds if both signs occur, else of the floats.
inline void choose_pivots(const Open& open, int32_t round, int64_t (&pivot)[3]) {
  const double low = double(float_of(open.low + 1)), high = double(float_of(open.high));
  const bool by_value = round < 6 && low < 0 && high > 0 && std::isfinite(high - low);
  for (int32_t j = 0; j < 3; ++j) {
    pivot[j] = open.low + (open.high - open.low) * (j + 1) / 4;
    // + 0.f: the key of -0 would stand below that of 0
    if (by_value) pivot[j] = std::clamp(key_of(float(low + (high - low) * (j + 1) / 4) + 0.f), open.low, open.high - 1);
  }
}

template <bool kMass>
Cut search(Open open, const Goal& goal, TokenList& sub) {
  for (int32_t round = 0;; ++round) {
    if (open.list.n <= kFew) return cut_few(open, goal);
    if (open.high - open.low <= 1) return cut_ties(open, goal);
    int64_t keys[3];
    choose_pivots(open, round, keys);
    const float pivots[3] = {float_of(keys[0]), float_of(keys[1]), float_of(keys[2])};
    const Above above = measure<kMass>(open.list, pivots);
    int32_t quarter = 3;  // the highest one whose tokens and all above reach the goal
    while (quarter > 0 && above.count[quarter - 1] + open.count_above < goal.count &&
           above.mass[quarter - 1] + open.mass_above < goal.mass)
      --quarter;
    narrow(open, quarter > 0 ? &pivots[quarter - 1] : nullptr, quarter < 3 ? &pivots[quarter] : nullptr, sub, kMass);
    if (quarter < 3) open.count_above += above.count[quarter], open.mass_above += above.mass[quarter];
    if (quarter > 0) open.low = keys[quarter - 1];
    if (quarter < 3) open.high = keys[quarter];
  }
}

// list: any tokens, none NaN; with weights if goal.mass is finite. sub: space for as many.
inline Cut cut_at(const TokenList& list, const Goal& goal, double list_mass, TokenList& sub) {
  if (list.n <= goal.count && !(list_mass >= goal.mass)) return {};
  F32 low = splat(kInf), high = splat(-kInf);
  for (int64_t i = 0; i < list.n; i += kLanes) {
    const Mask valid = mask_from_bits(first_bits(list.n - i));
    const F32 x = load(list.x + i);
    low = min(select(valid, x, low), low), high = max(select(valid, x, high), high);
  }
  const Open open{list, nullptr, key_of(-reduce_max(zeros() - low)) - 1, key_of(reduce_max(high))};
  return goal.mass < kInf ? search<true>(open, goal, sub) : search<false>(open, goal, sub);
}

// Leaves in list what the cut keeps, in order.
inline void keep(TokenList& list, const Cut& cut, bool weights) {
  if (cut.tie_end == INT64_MAX && cut.value == -kInf) return;
  int64_t num = 0;
  const F32 value = splat(cut.value);
  for (int64_t i = 0; i < list.n; i += kLanes) {
    const F32 x = load(list.x + i), w = weights ? load(list.w + i) : zeros();
    const I32 idx = load_ints(list.idx + i);
    const uint32_t ties = ~bits_from_mask(x < value) & first_bits(cut.tie_end - i);
    const uint32_t bits = (bits_from_mask(value < x) | ties) & first_bits(list.n - i);
    if (bits == 0) continue;
    if (weights) compress(list.w + num, w, bits);
    compress(list.idx + num, idx, bits);
    num += compress(list.x + num, x, bits);
  }
  list.n = num;
}

// Leaves in list the tokens whose weight is at least `least`.
inline void keep_heavy(TokenList& list, float least) {
  int64_t num = 0;
  for (int64_t i = 0; i < list.n; i += kLanes) {
    const F32 x = load(list.x + i), w = load(list.w + i);
    const I32 idx = load_ints(list.idx + i);
    const uint32_t bits = ~bits_from_mask(w < splat(least)) & first_bits(list.n - i);
    compress(list.w + num, w, bits);
    compress(list.idx + num, idx, bits);
    num += compress(list.x + num, x, bits);
  }
  list.n = num;
}

// A value that at least k tokens reach: the k-th largest of the chunks' largest values. Where there are fewer chunks, a
// guess: the least of them, which most of the chunks' tokens may still fall short of.
inline float top_k_bound(const RowScratch& s, int64_t num_chunks, int64_t k, TokenList& sub) {
  if (k >= num_chunks) return *std::min_element(s.chunk_max, s.chunk_max + num_chunks);
  const TokenList chunks{s.chunk_max, nullptr, nullptr, num_chunks};
  return cut_at(chunks, {k}, 0, sub).value;
}

// s.list = the tokens with x >= low; where k <= n, of these at least the k largest but not many more.
inline void gather_top_k(const float* x, int64_t n, int64_t k, float low, RowScratch& s) {
  const float bound = k > n ? low : std::max(low, top_k_bound(s, (n + kChunk - 1) / kChunk, k, s.sub));
  gather(x, n, s.chunk_max, bound, s.list);
  if (s.list.n < k && bound > low) gather(x, n, s.chunk_max, low, s.list);  // the guess was too high
}

FULMEN_CPU_END
