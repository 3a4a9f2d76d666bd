// SPDX-License-Identifier: Apache-2.0
// Attention with mma.sync and cp.async, for prefill, append, decode and any mix of them. CTAs take items of the plan
// from a queue until none is left:
//
//   keys and values --cp.async--> stages --ldmatrix--> S = Q Kᵀ -> weights, in registers -> O += P V -> finish
//
// The scores' layout in registers is that of the next product's left operand, so weights never leave them. One loop
// body; masks and changed logits are a branch of it that tiles without any skip. Launched by src/cuda/attention.cc.
#pragma once
#include <fulmen/cuda/attention/items.cuh>
#include <fulmen/cuda/attention/queries.cuh>
#include <fulmen/cuda/attention/write_rows.cuh>

namespace fulmen::cuda::batch_attention {

// The first row of a thread's warp.
template <Key K>
__device__ __forceinline__ int32_t first_row(int32_t thread) {
  const Control& control = *reinterpret_cast<const Control*>(dynamic_shared());
  return K.warps_q == 1 || control.spread > 1 ? 0 : thread / 32 * K.m_tiles * 16;
}

// Of this thread's warp.
template <Key K>
__device__ __forceinline__ const RowInfo* warp_rows() {
  constexpr SharedLayout kShared(K);
  return reinterpret_cast<const RowInfo*>(dynamic_shared() + kShared.rows) + first_row<K>(fresh_thread());
}

// Of the tile of keys that starts at `first`: what a warp must look at.
template <Key K>
struct Blocks {
  int32_t begin, end;  // from the tile's first key
  int32_t plain_end;   // of blocks that begin after it some row does not see some key, or the variant asks about all
  __device__ __forceinline__ Blocks(const Control& control, int32_t first, int32_t stop, bool asks) {
    const int32_t warp = fresh_thread() / 32;
    const Ranges& ranges = control.ranges[warp];
    const int32_t low = ranges.some.begin - first;
    const int32_t high = (ranges.some.end < stop ? ranges.some.end : stop) - first;
    begin = low > 0 ? low / K.block_kv * K.block_kv : 0;
    end = high < K.tile_kv ? high : K.tile_kv;
    if (K.warps_q > 1 && control.spread > 1) {  // each warp as many blocks as cover the tile
      constexpr int32_t kShare = (K.tile_kv / K.block_kv + num_warps(K) - 1) / num_warps(K) * K.block_kv;
      const int32_t mine = warp * kShare;
      begin = begin < mine + kShare ? (begin > mine ? begin : mine) : K.tile_kv;
      end = end < mine + kShare ? end : mine + kShare;
    }
    const int32_t all = (ranges.all.end < stop ? ranges.all.end : stop) - first - K.block_kv;
    plain_end = asks || first < ranges.all.begin || all < 0 ? -1 : all < K.tile_kv ? all : K.tile_kv;
  }
};

// The variant's say, or the mask, about the block of keys that starts at `first`.
template <Key K, class Variant>
__device__ __forceinline__ void look_at_keys(const Variant& variant, const Item& item, Scores<K>& scores, int32_t first,
                                             int32_t end) {
  if (asks(variant))
    apply_variant<K>(scores, variant, item, warp_rows<K>(), first, end, fresh_thread() % 32);
  else
    mask_scores<K>(scores, warp_rows<K>(), first, end, fresh_thread() % 32);
}

template <Key K, class Variant>
__device__ __forceinline__ void clear(States<K>& states, Outputs<K>& out) {
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m) {
    states.m[m][0] = states.m[m][1] = Variant::kSoftmax ? kLowest : 0;
    states.d[m][0] = states.d[m][1] = 0;
#pragma unroll
    for (int32_t n = 0; n < Outputs<K>::kTiles; ++n)
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) out.o[m][n][i] = 0;
  }
}

// The tile of keys that starts at `first`, in `stage`: this warp's sums take in what its rows see of it.
template <Key K, class Variant>
__device__ __forceinline__ void attend_tile(const Variant& variant, const Item& item, const Queries<K>& queries,
                                            States<K>& states, Outputs<K>& out, uint32_t stage,
                                            const Loader<K, Variant>& loader, int32_t tile, float scale) {
  constexpr uint32_t kKeyBytes = KeyOperands<K>::kChunks * 16, kValueBytes = ValueOperands<K>::kChunks * 16;
  const Blocks<K> blocks(*reinterpret_cast<const Control*>(dynamic_shared()), loader.first_key(tile), loader.end(),
                         asks(variant));
  if (blocks.begin >= blocks.end) return;
  uint32_t keys = stage + KeyOperands<K>::offset(fresh_thread() % 32) + uint32_t(blocks.begin) * kKeyBytes;
  uint32_t values = stage + ValueOperands<K>::offset(fresh_thread() % 32) + uint32_t(Loader<K, Variant>::kValues) +
                    uint32_t(blocks.begin) * kValueBytes;
  // Where a block's keys lie also tells which one it is: a counter would take a register that products need.
  const int32_t num_keys = (blocks.end - blocks.begin + K.block_kv - 1) / K.block_kv * K.block_kv;
  const uint32_t keys_end = keys + uint32_t(num_keys) * kKeyBytes;
  const int32_t plain_end = int32_t(keys) + (blocks.plain_end - blocks.begin) * int32_t(kKeyBytes);
  const bool no_maxima = K.warps_q == 1 && tile == 0;
  const uint32_t first_keys = keys;
  Scores<K> scores;
  if constexpr (kByTurns<K>) multiply_keys<K>(scores, queries, keys);
#pragma unroll 1
  do {
    if constexpr (!kByTurns<K>) multiply_keys<K>(scores, queries, keys);
    if (int32_t(keys) > plain_end) {
      const int32_t block =
          int32_t(keys - loader.stage(tile) - KeyOperands<K>::offset(fresh_thread() % 32)) / int32_t(kKeyBytes);
      look_at_keys<K>(variant, item, scores, loader.first_key(tile) + block, loader.end());
    }
    Weights<K> weights;
    if constexpr (Variant::kSoftmax)
      softmax_step<K>(weights, scores, states, out, scale, no_maxima && keys == first_keys);
    else
      weights = Weights<K>(scores);
    keys += K.block_kv * kKeyBytes;
    if constexpr (Loader<K, Variant>::kGroups == 2) Loader<K, Variant>::await_values();
    if (kByTurns<K> && keys != keys_end)
      multiply_both<K>(out, weights, values, scores, queries, keys);
    else
      multiply_values<K>(out, weights, values);
    values += K.block_kv * kValueBytes;
  } while (keys != keys_end);
}

// Once a warp's rows are written: those of the next item, in their place.
template <Key K, class Variant>
__device__ __forceinline__ void start_next_queries(const ParamsOf<Variant>& p) {
  const Item& next = reinterpret_cast<const Control*>(dynamic_shared())->next;
  sync_warp();
  if (next.index >= 0) start_queries<K>(p, next);
}

// All keys of the loader's range: the warps' sums of them, in shared memory; or true: the results are written. Where
// there is no room for all columns, leave(begin) takes those from `begin` on, and the last ones stay.
template <Key K, class Variant, class F>
__device__ __forceinline__ bool attend(const ParamsOf<Variant>& p, const Item& item, Loader<K, Variant>& loader,
                                       F leave) {
  constexpr SharedLayout kShared(K);
  const uint32_t q = shared_address(dynamic_shared() + kShared.q);
  const Queries<K> queries(q + uint32_t(first_row<K>(fresh_thread()) * K.d_qk * 2), fresh_thread() % 32);
  const float scale = forget(scale_of(p.variant));  // kept, where the compiler would make it anew per block
  States<K> states;
  Outputs<K> out;
  clear<K, Variant>(states, out);
#pragma unroll 1
  for (int32_t tile = 0; loader.first_key(tile) < loader.end(); ++tile) {
    loader.advance(tile);
    const int32_t first = loader.first_key(tile);
    const uint32_t stage = loader.stage(tile);
    if constexpr (!kNarrow<K>) {
      if (p.rope_pairs > 0) {
        rotate_rows<Half<K>, Loader<K, Variant>::kChunksK>(p, stage, K.tile_kv, Group<K>::thread(fresh_thread()),
                                                           Group<K>::kThreads,
                                                           [&](int32_t row) { return int64_t(first + row); });
        Group<K>::sync();
      }
    }
    attend_tile<K>(p.variant, item, queries, states, out, stage, loader, tile, scale);
  }
  if constexpr (!Variant::kSoftmax) {  // a row that sees a key has the state (0, 1)
#pragma unroll
    for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
      for (int32_t half = 0; half < 2; ++half) {
        const RowInfo row = warp_rows<K>()[m * 16 + half * 8 + fresh_thread() % 32 / 4];
        states.d[m][half] = row.begin < row.end ? 0.25f : 0;  // of each of four lanes
      }
  }
  wait_copies<0>();
  if constexpr (kWritesRows<K, Variant>) {
    if (writes_rows<K>(p, item)) {
      if (lends_stage(K)) sync_cta();  // all warps are done with the stages
      write_rows<K>(p, item, states, out);
      start_next_queries<K>(p);
      return true;
    }
  }
  constexpr int32_t kLast = kLastColumns<K>;
#pragma unroll 1
  for (int32_t begin = 0; begin < kLast; begin += shared_columns(K)) {
    sync_cta();
    share_sums<K>(states, out, begin);
    sync_cta();
    leave(begin);
  }
  sync_cta();  // before outputs take the stages' place
  share_sums<K>(states, out, kLast);
  sync_cta();
  return false;
}

// Of the range of keys that starts at `begin`.
__device__ __forceinline__ int32_t range_end(const attention::PlanItem& item, int32_t begin) {
  const int64_t stop = item.split_len > 0 ? (begin / item.split_len + int64_t(1)) * item.split_len : item.kv_end;
  return stop < item.kv_end ? int32_t(stop) : item.kv_end;
}

// control.item. What outlives attend() is kept in shared memory.
template <Key K, class Variant>
__device__ __forceinline__ void run_item(const ParamsOf<Variant>& p, PlanOnDevice& plan, Control& control) {
  const Item& item = control.item;
  constexpr bool kAlone = Loader<K, Variant>::kAlone;
  if (!kAlone && (K.warps_q == 1 || control.has_queries == 0)) start_queries<K>(p, item);
  uint32_t merge_index = 0;  // where registers are not short, its load is not waited for until look_ahead
  if (fresh_thread() == 32 && item.plan.slot >= 0) {
    merge_index = reinterpret_cast<const uint32_t*>(p.workspace + plan.merge_of_slot)[item.plan.slot];
    if constexpr (K.warps_q > 1) control.merge_index = merge_index;
  }
  FirstAbove<K, Variant> above;
  int32_t begin = item.plan.kv_begin;
  bool more;
  do {
    const int32_t end = range_end(item.plan, begin);
    if (fresh_thread() == 0) control.begin = begin, control.end = end;
    Loader<K, Variant> loader(p, item.plan, begin, end, fresh_thread());
    if constexpr (!kAlone) sync_cta();
    const auto pages = loader.ask();
    if (kAlone && begin == item.plan.kv_begin) start_queries<K>(p, item);  // while page ids are on their way
    loader.start(pages);
    if (begin == item.plan.kv_begin) {
      look_ahead<K>(p, plan, control, merge_index);
      load_rows<K>(p, item, control);
      above.ask(p, item, control.num_above);
      if (ctas_per_worker<K>() > 1) await_rank_sums();
      wait_copies<(K.stages - 1) * Loader<K, Variant>::kGroups>();  // all but keys and values
      sync_cta();
      arrange_queries<K>(p, item);
    }
    const bool done = attend<K>(p, item, loader, [&](int32_t column) {
      const int32_t from = control.begin;
      if (item.plan.split_len > 0)
        fold<K>(p, plan, item, column, from == item.plan.kv_begin, range_end(item.plan, from) == item.plan.kv_end);
      else
        finish<K>(p, plan, control, item, column, above);
    });
    begin = control.begin;
    const bool first = begin == item.plan.kv_begin;
    begin = range_end(item.plan, begin);
    more = begin < item.plan.kv_end;
    if (K.warps_q > 1 && fresh_thread() == 0) control.has_queries = done && control.next.index >= 0;
    if (item.plan.split_len > 0)
      fold<K>(p, plan, item, kLastColumns<K>, first, !more);
    else if (!done)
      finish<K>(p, plan, control, item, kLastColumns<K>, above);
    sync_cta();  // all of shared memory is about to be written again
  } while (more);
}

inline constexpr int32_t kShortShare = 640;  // keys of a CTA of a cluster, read in less time than a launch takes

template <Key K, class Variant>
__device__ __forceinline__ void run(const ParamsOf<Variant>& p) {
  PlanOnDevice& plan = *reinterpret_cast<PlanOnDevice*>(p.workspace);
  Control& control = *reinterpret_cast<Control*>(dynamic_shared());
  const bool settled = is_settled<K>(p);
  if (settled && leaves_early<K>(plan)) return;
  if (ctas_per_worker<K>() > 1) start_rank_sums<K>();
  if (!settled) follow_predecessor<K>(p);
  start<K>(p, plan, control);
  if (settled) follow_predecessor<K>(p);
  sync_cta();
  // Clusters of a successor that come while ours are there find places in few GPCs, whose bandwidth they then share.
  if (ctas_per_worker<K>() > 1 && control.item.plan.kv_end - control.item.plan.kv_begin <= kShortShare)
    allow_successor();
  while (control.item.index >= 0) {
    run_item<K>(p, plan, control);
    if (fresh_thread() == 0) control.item = control.next;
    sync_cta();
  }
  // One CTA for all, so that the others make room: the grid ends after its predecessor.
  if (p.is_beside && blockIdx.x + 1 == gridDim.x) wait_for_predecessor();
  if (ctas_per_worker<K>() > 1 || fresh_thread() != 0) return;
  if (p.queue_peers < 0 && control.num_items <= int32_t(gridDim.x)) return;
  const uint32_t num_ctas = gridDim.x + uint32_t(p.queue_peers < 0 ? 0 : p.queue_peers);
  if (fetch_add(&plan.finished, 1) + 1 == num_ctas) plan.next = plan.finished = 0;  // for the next launch
}

}  // namespace fulmen::cuda::batch_attention
