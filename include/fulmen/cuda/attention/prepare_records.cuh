// SPDX-License-Identifier: Apache-2.0
// Records of the plan, as attention reads them.
#pragma once
#include <fulmen/cuda/attention/prepare_limit.cuh>

namespace fulmen::cuda::attention_prepare {

using attention::PlanItem, attention::PlanMerge, attention::PlanRequest;

// Before anything is listed: no arrivals yet, and no garbage where a worker reads its first record before it knows
// whether there is one.
template <Key K>
__device__ __forceinline__ void clear_lists(const Params& p) {
  const int32_t first = cta_rank() * K.threads + int32_t(threadIdx.x), step = num_ctas() * K.threads;
  char* arrivals = p.workspace + p.head.arrivals;  // room is a multiple of 16 bytes
#pragma unroll 1
  for (int32_t i = first; i * 4 < p.max_merges * p.num_kv_heads; i += step)
    store_stream<16>(arrivals + i * 16, Bits<16>{});
  constexpr int32_t kParts = int32_t(sizeof(batch_attention::Record)) / 16;
  const int32_t num_parts = (p.num_workers + p.num_kv_heads - 1) / p.num_kv_heads * kParts;
  char* records = p.workspace + batch_attention::kRecords;
#pragma unroll 1
  for (int32_t i = first; i < num_parts; i += step) store_stream<16>(records + 16 * int64_t(i), Bits<16>{});
}

using RecordWords = Bits<sizeof(batch_attention::Record)>;

__device__ __forceinline__ batch_attention::Record record_of(const Tile& t, int32_t begin, int32_t end,
                                                             int32_t split_len, int32_t slot) {
  return {{t.request_idx, 0, 1, t.row_begin, t.num_rows, begin, end, split_len, slot},
          {t.request.qo_begin, t.request.qo_len, t.request.kv_len}};
}
__device__ __forceinline__ char* record_at(const Params& p, uint32_t at) {
  return p.workspace + batch_attention::kRecords + int64_t(at) * int64_t(sizeof(batch_attention::Record));
}
__device__ __forceinline__ void write_record(const Params& p, uint32_t at, const batch_attention::Record& record) {
  if (at < uint32_t(p.max_records)) store_stream<sizeof record>(record_at(p, at), bit_cast<RecordWords>(record));
}

__device__ __forceinline__ batch_attention::Record whole_record(const Params& p, const Tile& t) {
  const int32_t step = p.fixed_split_len > 0 ? fixed_step(p, t.request.kv_len) : 0;
  return record_of(t, t.begin, t.end, step > 0 && t.num_splits(step) > 1 ? step : 0, -1);
}

// A tile that is split.
struct SplitTile {
  Tile tile;
  Split split;
  int32_t at, slot, merge;
  int32_t start;  // of the first piece, before it is cut off at the tile's first key
};

static_assert(sizeof(SplitTile) == kSplitTileBytes);

__device__ __forceinline__ bool has_slots(const Params& p, const SplitTile& s) {  // counting them made sure
  return s.slot + s.split.num_pieces <= shared().max_slots && s.merge < p.max_merges;
}
__device__ __forceinline__ PlanMerge merge_of(const SplitTile& s) {
  return {s.tile.request_idx, 0, 1, s.tile.row_begin, s.tile.num_rows, s.slot, s.split.num_pieces};
}
__device__ __forceinline__ void write_merge(const Params& p, const SplitTile& s) {
  reinterpret_cast<PlanMerge*>(p.workspace + p.head.merges)[s.merge] = merge_of(s);
}
__device__ __forceinline__ void write_slot(const Params& p, const SplitTile& s, int32_t i) {
  reinterpret_cast<int32_t*>(p.workspace + p.head.merge_of_slot)[s.slot + i] = s.merge;
}
__device__ __forceinline__ batch_attention::Record piece_record(const SplitTile& s, int32_t i) {
  const int64_t begin = s.start + int64_t(i) * s.split.step, end = begin + s.split.step;
  return record_of(s.tile, int32_t(i == 0 ? s.tile.begin : begin), int32_t(end < s.tile.end ? end : s.tile.end), 0,
                   s.slot + i);
}
__device__ __forceinline__ void write_piece(const Params& p, const SplitTile& s, int32_t i) {
  if (!has_slots(p, s)) return;
  if (i == 0) write_merge(p, s);
  write_slot(p, s, i);
  write_record(p, uint32_t(s.at + i), piece_record(s, i));
}

}  // namespace fulmen::cuda::attention_prepare
