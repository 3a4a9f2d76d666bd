// SPDX-License-Identifier: Apache-2.0
// What the attention kernel and the code that launches it share; fulmen/ops/attention.h says what it computes,
// fulmen/attention/plan.h how its work is cut.
//
// A worker of the plan is a CTA, or a cluster, whose CTAs share the keys of an item and add their sums up in each
// other's shared memory. A CTA has four warps. Decode shapes (warps_q 1): all warps hold the same 16 or 32 packed rows,
// each walks every fourth tile of keys on its own, with its own copies in flight; their results merge at the end.
// Prefill shapes (warps_q 4; 8: a CTA of eight warps, one per SM): each warp holds its own 16 or 32 rows, and all share
// every tile of keys; rows so few that one warp holds them are given to all, and each walks some blocks of every tile.
#pragma once
#include <fulmen/attention/plan_records.h>
#include <fulmen/attention/variants.h>
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/divisor.h>
#include <fulmen/cuda/ids.h>

namespace fulmen::cuda::batch_attention {

inline constexpr int32_t kMaxWarps = 8, kMaxHeadDim = 256;
inline constexpr int32_t kBases = 96;      // numbers of kv_begin that a CTA reads before it knows its item
inline constexpr int32_t kMaxCluster = 8;  // larger ones start late, and do not fit everywhere

struct Key {
  DType q = DType::kBF16, kv = DType::kBF16;
  int32_t d_qk = 128, d_vo = 128;  // multiples of 16; a head's elements beyond its own are zeros
  int32_t m_tiles = 1;             // of 16 rows, per warp
  int32_t warps_q = 1;             // 1, 4 or 8
  int32_t tile_kv = 16;            // keys per stage
  int32_t block_kv = 16;           // of them, at a time in a warp's registers
  int32_t stages = 3;

  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("q", k.q), f("kv", k.kv), f("d_qk", k.d_qk), f("d_vo", k.d_vo), f("m_tiles", k.m_tiles);
    f("warps_q", k.warps_q), f("tile_kv", k.tile_kv), f("block_kv", k.block_kv), f("stages", k.stages);
  }
};

FULMEN_FN constexpr int32_t num_warps(const Key& k) { return k.warps_q > 4 ? k.warps_q : 4; }
FULMEN_FN constexpr int32_t num_threads(const Key& k) { return num_warps(k) * 32; }
// Per SM: without it the compiler of CUDA 13 spills registers of kernels that need some more than a third of an SM's.
FULMEN_FN constexpr int32_t min_ctas(const Key& k) {
  return k.m_tiles == 1 || (k.warps_q == 4 && k.d_vo > 64 && k.d_vo < 128) ? 1 : 0;
}
FULMEN_FN constexpr int32_t tile_q(const Key& k) { return 16 * k.m_tiles * k.warps_q; }
// Warps that share a tile of keys form a group.
FULMEN_FN constexpr int32_t num_groups(const Key& k) { return num_warps(k) / k.warps_q; }
// Columns of a tile's sums that are in shared memory at a time. Kernels of two stages, or of decode, have room for all;
// those of three and of one, for large heads where shared memory is small, let some follow the others.
FULMEN_FN constexpr int32_t shared_columns(const Key& k) {
  return k.warps_q == 4 && k.stages != 2 && k.d_vo > 64 ? 64 : k.d_vo;
}
// Where the last of them begin.
template <Key K>
inline constexpr int32_t kLastColumns = (K.d_vo - 1) / shared_columns(K) * shared_columns(K);
// The queries, which eight warps keep in registers, lie in the last stage until its first keys are asked for.
FULMEN_FN constexpr bool lends_stage(const Key& k) { return k.warps_q > 4; }

// A row's place in its request, and the keys it sees.
struct RowInfo {
  int32_t begin, end, qo_idx, qo_head;
};
// An item of the plan and its request.
struct Record {
  attention::PlanItem plan;
  attention::PlanRequest request;
};
struct Item : Record {
  int32_t index;  // < 0: there is none
};
// Keys that some of a warp's rows see, and keys that all of them see.
struct Ranges {
  attention::KvRange some, all;
};
// An item's request and head.
struct From {
  const char *k, *v;  // of the first key
  int64_t first_id;   // of its pages, in page_ids
};
// What a CTA's threads tell each other: this item and the next one, and whether the CTA is the last at a merge.
struct Control {
  Item item, next;
  alignas(8) int32_t begin;  // of the keys being walked; the two are read as one
  int32_t end;
  int32_t spread;  // 1, or all warps: they hold the same rows, and each walks some blocks of a tile
  Ranges ranges[kMaxWarps];
  From from;
  uint32_t is_last;
  uint32_t has_queries;  // the item's queries have been asked for
  int32_t num_items;
  uint32_t merge_index;  // of the item's slot, if it has one
  attention::PlanMerge merge;
  int32_t num_above;      // levels of a cascade whose results this launch takes in
  int64_t bases[kBases];  // p.kv_begin of the first requests
};
// Where a key and its value lie, bytes from the first of the head.
struct Place {
  int64_t k, v;
};
struct RowState {
  float m, d;  // log2 units
};

// Slices of shared memory, bytes. Outputs take the place of the stages once all keys are done.
struct SharedLayout {
  int32_t control, rows, states, places, q, stages, bytes;
  int32_t stage_bytes, output_pitch;  // pitch: floats per row, so that a warp's rows fall into different banks

  FULMEN_FN constexpr explicit SharedLayout(const Key& k)
      : control(0),
        rows((int32_t(sizeof(Control)) + 127) / 128 * 128),
        states(rows + tile_q(k) * int32_t(sizeof(RowInfo))),
        places(states + num_groups(k) * tile_q(k) * int32_t(sizeof(RowState))),
        q(places + num_groups(k) * 2 * k.tile_kv * int32_t(sizeof(Place))),
        stages(q + (lends_stage(k) ? 0 : tile_q(k) * k.d_qk * 2)),
        bytes(0),
        stage_bytes(k.tile_kv * (k.d_qk + k.d_vo) * size_of(k.kv)),
        output_pitch(shared_columns(k) + 8) {
    const int32_t ring = num_groups(k) * k.stages * stage_bytes;
    const int32_t output = num_groups(k) * tile_q(k) * output_pitch * 4;
    bytes = stages + (ring > output ? ring : output);
    if (lends_stage(k)) q = stages + (k.stages - 1) * stage_bytes;
  }
};
// With what the CTAs of a cluster write into each other's memory (attention/rank_sums.cuh), beyond the layout.
FULMEN_FN constexpr int32_t shared_bytes(const Key& k, int32_t cluster) {
  const int32_t sums = tile_q(k) * k.d_vo * 4 + kMaxCluster * (16 + tile_q(k) * int32_t(sizeof(RowState))) + 16;
  return SharedLayout(k).bytes + (cluster > 1 ? sums : 0);
}

// The head of the workspace: the plan as the kernel reads it. Records lie at kRecords, at least one per worker, so that
// a CTA need not read the head before its first one. Offsets are bytes from the head. A graph that was captured with
// one plan runs any other that is uploaded to the same place.
inline constexpr int64_t kRecords = 256;
struct PlanOnDevice {
  int32_t num_items, num_workers;
  uint32_t next, finished;            // the queue: items taken beyond the first of each CTA; CTAs that are done
  int32_t slot_rows, slots_per_head;  // rows that a slot holds; from the slots of one kv head to those of the next
  int64_t merges, merge_of_slot, arrivals, slot_states, slot_outputs, totals, total_states;
};

// What a launch says besides the variant.
struct Common {
  const char *q, *k, *v;
  void* out;
  float* lse;                                                // or null
  int64_t q_token, q_head;                                   // strides: bytes
  int64_t k_page, k_token, k_head, v_page, v_token, v_head;  // bytes
  int64_t out_token, out_head, lse_token, lse_head;          // elements
  IdVector page_ids, kv_begin;                               // page_ids.data null: ragged; kv_begin.data null: 0
  int64_t table_stride;                                      // > 0: page_ids is a table with so many per request
  int64_t num_pages;
  int32_t num_bases;  // of kv_begin, up to kBases
  Divisor page_size, group;
  // A record of a plan that was made on the device stands for an item of each kv head, whose merges lie so far apart; a
  // record of one that was uploaded is one item: 1, 0.
  Divisor record_heads;
  int32_t merges_per_head;
  int32_t d_qk, d_vo;  // without padding
  DType out_dtype;
  bool out_in_fours, out_in_eights;  // so many elements of out are aligned
  float v_scale, lse_scale;
  // Of launches for parts of a batch, beside each other (src/cuda/attention_lists.h):
  bool is_beside;       // the predecessor is one of them and has waited for what all read; it is waited for at the end
  int32_t queue_peers;  // CTAs of other launches that take items from this queue, from which all come; -1: a CTA's
                        // first item is its own
  bool is_settled;      // the plan and its tables were written before the predecessor began
  int32_t rope_pairs;   // 0: no rotation
  uint64_t rope_turns[kMaxHeadDim / 2];  // of pair i per position, in turns of 2^-64
  char* workspace;                       // starts with PlanOnDevice
};
// The variant comes last and aligned, so that its bytes can be appended by who does not know its type.
inline constexpr int32_t kVariantAlign = 16;
template <class Variant>
struct ParamsOf : Common {
  alignas(kVariantAlign) Variant variant;
};
FULMEN_FN constexpr int64_t variant_offset() {
  return (int64_t(sizeof(Common)) + kVariantAlign - 1) / kVariantAlign * kVariantAlign;
}
using Params = ParamsOf<attention::Standard>;

// Whether a variant is that of a cascade's launches (cascade_attention.h).
template <class Variant>
inline constexpr bool kOfCascade = false;

}  // namespace fulmen::cuda::batch_attention
