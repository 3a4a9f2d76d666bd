// SPDX-License-Identifier: Apache-2.0
// What the kernel that plans attention on the device and the code that launches it share. It does what src/plan does on
// the host: lengths in, a balanced list of records out, longest first (attention/plan.h), in the layout that
// batch_attention reads. A record stands for all kv heads of its tile, so that the list is short at any batch.
#pragma once
#include <fulmen/cuda/batch_attention.h>

namespace fulmen::cuda::attention_prepare {

inline constexpr int32_t kBuckets = 512;
inline constexpr int32_t kPieceBuckets = 128;                                         // eight powers of two
inline constexpr int32_t kCandidates = 32;                                            // limits that are tried
inline constexpr int32_t kFewThreads = 256, kSomeThreads = 512, kManyThreads = 1024;  // of a CTA
inline constexpr int32_t kTilesPerThread = 2;                                         // where few threads plan, at most
inline constexpr int32_t kMostLists = kSomeThreads / 32;  // warps that keep a list of their own
inline constexpr int32_t kCtas = 8;                       // of a cluster for many tiles
inline constexpr int32_t kTilesOfOne = 4096;              // that one CTA plans as fast as a cluster does
inline constexpr int32_t kSharedRequests = 2048;          // more are kept in the workspace
inline constexpr int32_t kMaxTiles = 1 << 22;
inline constexpr int32_t kMaxSplits = 64;     // of one tile, under fixed_split_len, as on the host
inline constexpr int32_t kItemOverhead = 32;  // keys' worth of work that any item costs, as on the host

struct Key {
  int32_t threads = kManyThreads;
  int32_t tiles = 0;  // of a thread, in its registers; 0: any number, planned by a cluster

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("threads", k.threads), f("tiles", k.tiles);
  }
};
FULMEN_FN constexpr int32_t num_threads(const Key& k) { return k.threads; }
FULMEN_FN constexpr int32_t min_ctas(const Key&) { return 1; }  // per SM: registers are there

inline constexpr int32_t kSplitTileBytes = 64;

// How many SMs a list of few rows begins with where `workers` would be its share: fewer, where the items of the other,
// of which one takes a CTA for long, are then done in whole rounds.
FULMEN_FN int32_t whole_rounds(int32_t workers, int64_t other_items, int32_t num_sms, int32_t ctas_per_sm) {
  constexpr int32_t kFewRounds = 6;
  const int32_t round = (num_sms - workers) * ctas_per_sm;
  if (round <= 0 || other_items < round || other_items >= (kFewRounds + 1) * round) return workers;
  const int32_t items = int32_t(other_items), each = items / round * ctas_per_sm;
  const int32_t fewer = num_sms - (items + each - 1) / each;
  return fewer < workers && 5 * fewer >= 3 * workers ? fewer : workers;
}

struct Request {
  int32_t qo_begin, qo_len, kv_len, first_tile;
};

// What tiles of one cost have in common; bucket 0 costs most.
struct Shared {
  alignas(16) Request requests[kSharedRequests];  // then records on their way to memory, or split tiles
  uint32_t count[kBuckets], top[kBuckets];        // tiles, and the bits of the largest cost; then records
  union {
    uint16_t used[kMostLists][kBuckets];  // buckets that are not empty, in order; of each warp where few threads plan
    alignas(16) char splits[kFewThreads * kSplitTileBytes];  // then split tiles, one per thread
  };
  int32_t num_used;
  uint32_t warp_sums[kManyThreads / 32];
  uint64_t warp_totals[kManyThreads / 32];
  float estimates[kCandidates], limits[kCandidates];
  uint32_t max_rows, num_slots, num_merges, num_records, num_tiles;
  uint32_t total[2];             // of all tiles' costs, low and high half
  int32_t slot_rows, max_slots;  // of the tile with the most rows, and how many such slots there are
  int32_t last_bucket;           // that is split, in part, where slots do not suffice
  uint32_t last_slots;           // left for it
  uint32_t slots_taken;          // of those, while tiles are walked
  // Where few threads plan: first places by bucket, pieces by their bucket, and split tiles of each of a thread's
  // tiles.
  uint32_t base[kBuckets];
  alignas(16) uint32_t pieces[kPieceBuckets];
  alignas(16) uint32_t piece_base[kMostLists][kPieceBuckets];
  uint32_t split_tiles[kTilesPerThread];
  uint32_t words[kBuckets / 32];      // a bit for each bucket that is not empty
  float kinds[kManyThreads / 32][3];  // of each warp's requests: work in few rows, in many, tiles of many
};

static_assert(sizeof(Shared) <= 64 * 1024, "what the smallest device has");

// What is brought to L2 while the plan is made: the first keys of the first tiles.
inline constexpr int32_t kLine = 128;  // bytes
struct Ahead {
  int32_t num_tiles;    // 0: nothing
  Divisor keys, heads;  // of each tile; of a request
  const char *k, *v;
  int64_t k_page, k_token, k_head, v_page, v_token, v_head;  // bytes
  int32_t k_bytes, v_bytes;                                  // of a row
  IdVector page_ids;
  int64_t table_stride, num_pages;
  Divisor page_size;
};

struct Params {
  char* workspace;
  batch_attention::PlanOnDevice head;  // offsets; counts are the kernel's to fill
  int64_t requests;                    // offset of Request[batch_size], where they do not fit into shared memory
  IdVector qo_indptr, kv_indptr, last_page_len, seq_lens;  // data null: not given
  const int32_t* mask_indptr;                              // null: none, or one request
  int64_t mask_bytes;                                      // -1: no mask
  int64_t num_kv;         // ragged: tokens; pages: ids in the list, or in each row of a table
  int32_t page_size;      // 0: ragged
  int32_t narrow_num_kv;  // num_kv, where
  bool is_narrow;         // it and all numbers in the tables are i32
  bool is_table;
  int32_t batch_size, total_q;
  int32_t least_rows, most_rows;  // packed, of a request; another list has those of more or fewer
  float many_cost;                // > 0: this is the list of fewer; a row and key of the other's, in keys of this one's
  int32_t other_tile_shift, other_ctas;  // the other's tile; its CTAs on an SM
  int32_t num_sms;
  int32_t rows_per_request;   // where there is no qo_indptr
  Divisor tiles_per_request;  // the same
  Divisor group;
  Divisor tile_kv, min_split;
  int32_t tile_q, tile_shift, row_cost, key_cost, window_left, fixed_split_len;
  bool causal, disable_split;
  int32_t num_kv_heads, num_workers;
  int32_t max_tiles, max_records, max_slots, max_merges;  // what the workspace holds, for each kv head
  int32_t slot_room;                                      // rows of all slots
  Ahead ahead;
};

}  // namespace fulmen::cuda::attention_prepare
