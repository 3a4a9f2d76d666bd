// SPDX-License-Identifier: Apache-2.0
// Attention with mma.sync and cp.async, for prefill, append, decode and any mix of them. CTAs take items of the plan
// from a queue until none is left:
//
//   keys and values --cp.async--> stages --ldmatrix--> S = Q Kᵀ -> weights, in registers -> O += P V -> finish
//
// The scores' layout in registers is that of the next product's left operand, so weights never leave them. One loop
// body; masks and changed logits are a branch of it that tiles without any skip. Launched by src/cuda/attention.cc.
#pragma once
#include <fulmen/cuda/attention/finish.cuh>
#include <fulmen/cuda/attention/rotate.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::batch_attention {

template <Key K, class Variant>
__device__ __forceinline__ void load_rows(const ParamsOf<Variant>& p, const Item& item) {
  constexpr SharedLayout kShared(K);
  RowInfo* rows = reinterpret_cast<RowInfo*>(dynamic_shared() + kShared.rows);
#pragma unroll 1
  for (int32_t row = fresh_thread(); row < tile_q(K); row += kWarps * 32) {
    RowInfo info{0, 0, 0, item.plan.kv_head * p.group.divisor};
    if (row < item.plan.num_rows) {
      const int32_t packed = item.plan.row_begin + row;
      info.qo_idx = p.group.quotient(packed);
      info.qo_head += packed - info.qo_idx * p.group.divisor;
      const attention::KvRange seen = p.variant.visible({item.plan.request_idx, info.qo_idx, info.qo_head,
                                                         item.plan.kv_head, item.request.qo_len, item.request.kv_len});
      info.begin = seen.begin, info.end = seen.end;
    }
    rows[row] = info;
  }
}

// Q's rows, 16 elements at a time; with a negative scale their negatives.
template <Key K, class Variant>
__device__ __forceinline__ void load_queries(const ParamsOf<Variant>& p, const Item& item) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kBlocks = K.d_qk / 16;
  const uint32_t to = shared_address(dynamic_shared() + kShared.q);
  const uint32_t flip = sign_of(p.variant) < 0 ? 0x80008000u : 0;
#pragma unroll 2
  for (int32_t i = fresh_thread(); i < tile_q(K) * kBlocks; i += kWarps * 32) {
    const int32_t row = i / kBlocks, block = i % kBlocks;
    Bits<16> x[2]{};
    if (row < item.plan.num_rows) {
      const int32_t packed = item.plan.row_begin + row, qo_idx = p.group.quotient(packed);
      const int32_t head = item.plan.kv_head * p.group.divisor + packed - qo_idx * p.group.divisor;
      const char* from = p.q + (item.request.qo_begin + qo_idx) * p.q_token + head * p.q_head + block * 32;
      x[0] = load_stream<16>(from);
      if (block * 16 + 8 < p.d_qk) x[1] = load_stream<16>(from + 16);
    }
    Bits<16> y[2];
#pragma unroll
    for (int32_t w = 0; w < 8; ++w) {
      const int32_t at = kNarrow<K> ? w / 2 + w % 2 * 4 : w;
      y[at / 4].word[at % 4] = x[w / 4].word[w % 4] ^ flip;
    }
    store_shared<16>(to + uint32_t(Swizzle<K.d_qk / 8>::at(row, 2 * block)), y[0]);
    store_shared<16>(to + uint32_t(Swizzle<K.d_qk / 8>::at(row, 2 * block + 1)), y[1]);
  }
  if (p.rope_pairs == 0) return;
  sync_cta();
  const RowInfo* rows = reinterpret_cast<const RowInfo*>(dynamic_shared() + kShared.rows);
  rotate_rows<Half<K>, K.d_qk / 8>(p, to, item.plan.num_rows, fresh_thread(), kWarps * 32, [&](int32_t row) {
    return int64_t(item.request.kv_len) - item.request.qo_len + rows[row].qo_idx;
  });
}

// What each warp's rows see, from the rows in shared memory.
template <Key K>
__device__ __forceinline__ void classify_rows(Control& control, int32_t num_rows) {
  constexpr SharedLayout kShared(K);
  const int32_t warp = fresh_thread();
  if (warp >= kWarps) return;  // a thread for each
  const int32_t first = K.warps_q == 1 ? 0 : warp * K.m_tiles * 16;
  const int32_t last = (num_rows < first + K.m_tiles * 16 ? num_rows : first + K.m_tiles * 16) - 1;
  Ranges ranges{};
  if (first <= last) {
    const RowInfo* rows = reinterpret_cast<const RowInfo*>(dynamic_shared() + kShared.rows);
    const RowInfo a = rows[first], z = rows[last];  // bounds do not decrease from a to z
    ranges = {{a.begin, z.end}, {z.begin, a.end}};
  }
  control.ranges[warp] = ranges;
}

// All keys of [begin, end): the warps' sums of them.
template <Key K, class Variant>
__device__ __forceinline__ void attend(const ParamsOf<Variant>& p, const Item& item, Loader<K, Variant>& loader,
                                       int32_t end) {
  constexpr SharedLayout kShared(K);
  const Control& control = *reinterpret_cast<const Control*>(dynamic_shared());
  const uint32_t q = shared_address(dynamic_shared() + kShared.q);
  const int32_t thread = fresh_thread(), lane = thread % 32;
  const Queries<K> queries(q + uint32_t(K.warps_q == 1 ? 0 : thread / 32 * K.m_tiles * 16 * K.d_qk * 2), lane);
  const RowInfo* rows = reinterpret_cast<const RowInfo*>(dynamic_shared() + kShared.rows) +
                        (K.warps_q == 1 ? 0 : thread / 32 * K.m_tiles * 16);
  const float scale = scale_of(p.variant);
  States<K> states;
  Outputs<K> out;
#pragma unroll
  for (int32_t m = 0; m < K.m_tiles; ++m) {
    states.m[m][0] = states.m[m][1] = Variant::kSoftmax ? -kInfinity : 0;
    states.d[m][0] = states.d[m][1] = 0;
#pragma unroll
    for (int32_t n = 0; n < Outputs<K>::kTiles; ++n)
#pragma unroll
      for (int32_t i = 0; i < 4; ++i) out.o[m][n][i] = 0;
  }
#pragma unroll 1
  for (int32_t tile = 0; loader.first_key(tile) < end; ++tile) {
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
    const Ranges ranges = control.ranges[thread / 32];
    const int32_t stop = first + K.tile_kv;
    if (stop <= ranges.some.begin || first >= ranges.some.end) continue;
    Scores<K> scores;
    multiply_keys<K>(scores, queries, stage, lane);
    if (asks(p.variant))
      apply_variant<K>(scores, p.variant, item, rows, first, end, lane);
    else if (first < ranges.all.begin || stop > ranges.all.end || stop > end)
      mask_scores<K>(scores, rows, first, end, lane);
    if constexpr (Variant::kSoftmax) softmax_step<K>(scores, states, out, scale);
    multiply_values<K>(out, scores, stage + uint32_t(Loader<K, Variant>::kValues), lane);
  }
  if constexpr (!Variant::kSoftmax) {  // a row that sees a key has the state (0, 1)
#pragma unroll
    for (int32_t m = 0; m < K.m_tiles; ++m)
#pragma unroll
      for (int32_t half = 0; half < 2; ++half) {
        const RowInfo row = rows[m * 16 + half * 8 + lane / 4];
        states.d[m][half] = row.begin < row.end ? 0.25f : 0;  // of each of four lanes
      }
  }
  wait_copies<0>();
  sync_cta();  // before outputs take the stages' place
  share_sums<K>(states, out);
  sync_cta();
}

template <class Variant>
__device__ __forceinline__ void load_item(const ParamsOf<Variant>& p, int32_t index, Item& item) {
  const int32_t record = p.record_heads.quotient(index);
  static_cast<Record&>(item) = reinterpret_cast<const Record*>(p.workspace + kRecords)[record];
  item.plan.kv_head += index - record * p.record_heads.divisor;
}

// next: is fetched while the first keys are on their way.
template <Key K, class Variant>
__device__ __forceinline__ void run_item(const ParamsOf<Variant>& p, PlanOnDevice& plan, Control& control,
                                         const Item& item, Item& next) {
  int32_t begin = item.plan.kv_begin;
  for (bool first = true; first || begin < item.plan.kv_end; first = false) {
    const int32_t split_len = item.plan.split_len, last = item.plan.kv_end;
    const int64_t stop = split_len > 0 ? (begin / split_len + int64_t(1)) * split_len : last;
    const int32_t end = stop < last ? int32_t(stop) : last;
    Loader<K, Variant> loader(p, item.plan, begin, end, fresh_thread());
    sync_cta();
    loader.start();
    if (first) {
      if (fresh_thread() == 0) {
        const int32_t index = int32_t(fetch_add(&plan.next, 1) + gridDim.x);
        next.index = index < plan.num_items ? index : -1;
        if (next.index >= 0) load_item(p, index, next);
      }
      load_rows<K>(p, item);
      load_queries<K>(p, item);
      sync_cta();
      classify_rows<K>(control, item.plan.num_rows);
      sync_cta();
    }
    attend<K>(p, item, loader, end);
    if (item.plan.split_len > 0)
      fold<K>(p, plan, item, first, end == item.plan.kv_end);
    else
      finish<K>(p, plan, item);
    begin = end;
    sync_cta();  // all of shared memory is about to be written again
  }
}

template <Key K, class Variant>
__device__ __forceinline__ void run(const ParamsOf<Variant>& p) {
  PlanOnDevice& plan = *reinterpret_cast<PlanOnDevice*>(p.workspace);
  Control& control = *reinterpret_cast<Control*>(dynamic_shared());
  wait_for_predecessor();
  allow_successor();
  if (fresh_thread() == 0) {
    const int32_t index = int32_t(blockIdx.x);
    control.items[0].index = index < plan.num_items ? index : -1;
    load_item(p, index, control.items[0]);
  }
  sync_cta();
  for (int32_t i = 0; control.items[i].index >= 0; i ^= 1)
    run_item<K>(p, plan, control, control.items[i], control.items[i ^ 1]);
  if (fresh_thread() != 0) return;
  if (fetch_add(&plan.finished, 1) + 1 == gridDim.x) plan.next = plan.finished = 0;  // for the next launch
}

}  // namespace fulmen::cuda::batch_attention
