// SPDX-License-Identifier: Apache-2.0
// What the kernels of sampling (sample, token_filter, softmax, top_k, chain_speculative_sampling) and the code that
// launches them share. A team of CTAs (a cluster, or one CTA) owns a row of the vocabulary:
//
//   row:    block 0 | block 1 | … of kTokenBlock elements each; CTA r of C owns blocks r, r + C, …
//   CTA:    its part in shared memory (resident) or read again from global memory; warp w owns blocks w, w + W, …
//   lane:   4 neighbouring elements of every 128
//
// Sums are made per block in an order that the team's size does not change, and joined as integers, so a row gives the
// same bits however many CTAs share it.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/core/math.h>
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda {

inline constexpr int32_t kTokenBlock = 512, kTokenBins = 2048, kMaxTeam = 8;
inline constexpr int32_t kTokenList = 3072, kLocalList = 2048;  // tokens that the leader's list holds, and another's
inline constexpr int32_t kMostListedByOne = 1500;               // of a top_k that one CTA goes through its list for
inline constexpr int32_t kMaxTokenBlocks = 8192;                // a row has at most that many

// The ways of a filter that a kernel holds: those of a caller who knows the filter are compiled sooner.
enum class TokenPath : uint8_t {
  kAny,
  kList,    // top_k is a number that the list holds
  kSum,     // nothing is dropped
  kSearch,  // the cut is a mass of the row
  kValue,   // min_p alone: a value says whether it is kept
};
constexpr const char* name_of(TokenPath p) {
  switch (p) {
    case TokenPath::kAny: return "any";
    case TokenPath::kList: return "list";
    case TokenPath::kSum: return "sum";
    case TokenPath::kSearch: return "search";
    case TokenPath::kValue: return "value";
  }
  return "";
}

struct TokenKey {
  DType x = DType::kF32;
  int32_t vec = 1;        // elements per copy: 16 bytes' worth, or 1 where rows are not aligned
  int32_t threads = 512;  // per CTA
  bool logits = false;    // what the values are; top_k: false
  bool cluster = false;   // the team is a cluster
  bool resident = true;   // the row is kept in shared memory
  TokenPath path = TokenPath::kAny;

  constexpr bool operator==(const TokenKey&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("x", k.x), f("vec", k.vec), f("threads", k.threads), f("logits", k.logits), f("cluster", k.cluster);
    f("resident", k.resident), f("path", k.path);
  }
};
FULMEN_FN constexpr int32_t num_threads(const TokenKey& k) { return k.threads; }
// Two CTAs of 512 threads: while one searches, the other's row is on its way. A template, so that an op's own comes
// first.
template <int = 0>
FULMEN_FN constexpr int32_t min_ctas(const TokenKey& k) {
  return k.threads == 512 ? 2 : 4;
}

// Bytes from the start of dynamic shared memory.
struct TokenLayout {
  static constexpr int32_t kControl = 0, kFilter = 256, kSearch = 320, kScan = 512, kBins = 1024,
                           kSums = kBins + 4 * kTokenBins, kList = kSums + 4 * kTokenBins,
                           kBlocks = kList + 8 * kTokenList;
  FULMEN_FN static constexpr int32_t num_blocks(int32_t n) { return (n + kTokenBlock - 1) / kTokenBlock; }
  FULMEN_FN static constexpr int32_t row(int32_t n) { return kBlocks + (num_blocks(n) * 8 + 15) / 16 * 16; }
  // A CTA's part of the row.
  FULMEN_FN static constexpr int32_t blocks_per_cta(int32_t n, int32_t team) {
    return (num_blocks(n) + team - 1) / team;
  }
  FULMEN_FN static constexpr int64_t bytes(int32_t n, int32_t team, int32_t element_bytes, bool resident) {
    return row(n) + (resident ? int64_t(blocks_per_cta(n, team)) * kTokenBlock * element_bytes : 0);
  }
};

// Numbers that come one per row or as one for all.
struct RowFloats {
  const float* data;  // null: value
  int64_t stride;
  float value;
  FULMEN_FN float of(int64_t row) const { return data == nullptr ? value : data[row * stride]; }
};
struct RowIds {
  IdVector ids;  // null: value
  int64_t stride;
  int64_t value;
  FULMEN_FN int64_t of(int64_t row) const { return ids.data == nullptr ? value : ids[row * stride]; }
};
struct RowWords {
  const uint64_t* data;  // null: value
  int64_t stride;        // 0: one for all
  uint64_t value;
  FULMEN_FN uint64_t of(int64_t row) const { return data == nullptr ? value : data[row * stride]; }
};

struct TokenMatrix {
  const void* data;
  int64_t stride;  // elements
  int32_t n;
};

// RowStatus, FilterOrder of ops/token_filter.h, which kernels cannot include.
struct TokenStatus {
  static constexpr int32_t kOk = 0, kNan = 1, kEmpty = 2, kInfinite = 3, kBadParameter = 4;
};

struct TokenFilterNumbers {
  RowIds top_k;
  RowFloats top_p, min_p;
  bool joint, keep_ties;
};
struct TokenRandom {
  RowWords seed, offset;
  bool own_seed;  // a seed per row: subsequence 0
};
struct TokenOutput {  // ids: [rows] or [rows, …]
  void* data;
  int64_t stride;
  bool wide;
  FULMEN_FN void set(int64_t at, int64_t value) const {
    if (wide)
      static_cast<int64_t*>(data)[at] = value;
    else
      static_cast<int32_t*>(data)[at] = int32_t(value);
  }
};
struct StatusOutput {
  int32_t* data;  // null: nobody asks
  int64_t stride;
  FULMEN_FN void set(int64_t row, int32_t value) const {
    if (data != nullptr) data[row * stride] = value;
  }
};

}  // namespace fulmen::cuda
