// SPDX-License-Identifier: Apache-2.0
// An item's rows: which keys they see, and their queries, brought to shared memory in the order that products take.
#pragma once
#include <fulmen/cuda/attention/rotate.cuh>
#include <fulmen/cuda/attention/softmax.cuh>

namespace fulmen::cuda::batch_attention {

template <class Variant>
__device__ __forceinline__ RowInfo row_info(const ParamsOf<Variant>& p, const Item& item, int32_t row) {
  RowInfo info{0, 0, 0, item.plan.kv_head * p.group.divisor};
  const int32_t packed = item.plan.row_begin + row;
  info.qo_idx = p.group.quotient(packed);
  info.qo_head += packed - info.qo_idx * p.group.divisor;
  const attention::KvRange seen = p.variant.visible(
      {item.plan.request_idx, info.qo_idx, info.qo_head, item.plan.kv_head, item.request.qo_len, item.request.kv_len});
  info.begin = seen.begin, info.end = seen.end;
  return info;
}

// The rows' ranges of keys, and what each warp's rows see together.
template <Key K, class Variant>
__device__ __forceinline__ void load_rows(const ParamsOf<Variant>& p, const Item& item, Control& control) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kWarpRows = K.m_tiles * 16;
  RowInfo* rows = reinterpret_cast<RowInfo*>(dynamic_shared() + kShared.rows);
  const int32_t num_rows = item.plan.num_rows;
#pragma unroll 1
  for (int32_t row = fresh_thread(); row < tile_q(K); row += num_threads(K))
    rows[row] = row < num_rows ? row_info(p, item, row) : RowInfo{0, 0, 0, item.plan.kv_head * p.group.divisor};
  const int32_t warp = fresh_thread() - 64;  // a thread for each, of another warp than those that fetch
  if (warp < 0 || warp >= num_warps(K)) return;
  const int32_t spread = K.warps_q > 1 && num_rows <= kWarpRows ? num_warps(K) : 1;
  const int32_t first = K.warps_q == 1 || spread > 1 ? 0 : warp * kWarpRows;
  const int32_t last = (num_rows < first + kWarpRows ? num_rows : first + kWarpRows) - 1;
  Ranges ranges{};
  if (first <= last) {  // bounds do not decrease from the first row to the last
    const RowInfo a = row_info(p, item, first), z = row_info(p, item, last);
    ranges = {{a.begin, z.end}, {z.begin, a.end}};
  }
  control.ranges[warp] = ranges;
  if (warp == 0) control.spread = spread;
}

// Copies of Q's rows, a group of their own; where warps have rows of their own, each warp's of its rows, each of whose
// places one lane looks up.
template <Key K, class Variant>
__device__ __forceinline__ void start_queries(const ParamsOf<Variant>& p, const Item& item) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kChunks = K.d_qk / 8;
  const uint32_t to = shared_address(dynamic_shared() + kShared.q);
  constexpr int32_t kThreads = K.warps_q > 1 ? 32 : num_threads(K), kRows = tile_q(K) / K.warps_q;
  const int32_t thread = fresh_thread(), first = K.warps_q > 1 ? thread / 32 * kRows : 0;
  constexpr int64_t kNoRow = int64_t(1) << 63;
  const auto place_of = [&](int32_t row) {
    const bool valid = row < item.plan.num_rows;
    const int32_t packed = item.plan.row_begin + (valid ? row : 0), qo_idx = p.group.quotient(packed);
    const int32_t head = item.plan.kv_head * p.group.divisor + packed - qo_idx * p.group.divisor;
    return valid ? (item.request.qo_begin + qo_idx) * p.q_token + head * p.q_head : kNoRow;
  };
  const int64_t mine = K.warps_q > 1 ? place_of(first + thread % kRows) : 0;
#pragma unroll 4
  for (int32_t i = thread % kThreads; i < kRows * kChunks; i += kThreads) {
    const int32_t row = i / kChunks, chunk = i % kChunks;
    const int64_t place = K.warps_q > 1 ? shuffle_from(mine, row) : place_of(row);
    const bool valid = place != kNoRow && chunk * 8 < p.d_qk;
    copy_async_16(to + uint32_t(Swizzle<kChunks>::at(first + row, chunk)), p.q + (valid ? place + chunk * 16 : 0),
                  valid);
  }
  commit_copies();
}

// Q in place: with a negative scale its negatives; beside FP8 keys in the order in which those are widened; rotated.
template <Key K, class Variant>
__device__ __forceinline__ void arrange_queries(const ParamsOf<Variant>& p, const Item& item) {
  constexpr SharedLayout kShared(K);
  constexpr int32_t kBlocks = K.d_qk / 16;
  const uint32_t q = shared_address(dynamic_shared() + kShared.q);
  const uint32_t flip = sign_of(p.variant) < 0 ? 0x80008000u : 0;
  if (kNarrow<K> || flip != 0) {
#pragma unroll 1
    for (int32_t i = fresh_thread(); i < tile_q(K) * kBlocks; i += num_threads(K)) {
      const uint32_t low = q + uint32_t(Swizzle<K.d_qk / 8>::at(i / kBlocks, i % kBlocks * 2));
      const uint32_t high = q + uint32_t(Swizzle<K.d_qk / 8>::at(i / kBlocks, i % kBlocks * 2 + 1));
      const Bits<16> x[2] = {load_shared<16>(low), load_shared<16>(high)};
      Bits<16> y[2];
#pragma unroll
      for (int32_t w = 0; w < 8; ++w) {
        const int32_t at = kNarrow<K> ? w / 2 + w % 2 * 4 : w;
        y[at / 4].word[at % 4] = x[w / 4].word[w % 4] ^ flip;
      }
      store_shared<16>(low, y[0]);
      store_shared<16>(high, y[1]);
    }
    sync_cta();
  }
  if (p.rope_pairs == 0) return;
  const RowInfo* rows = reinterpret_cast<const RowInfo*>(dynamic_shared() + kShared.rows);
  rotate_rows<Half<K>, K.d_qk / 8>(p, q, item.plan.num_rows, fresh_thread(), num_threads(K), [&](int32_t row) {
    return int64_t(item.request.kv_len) - item.request.qo_len + rows[row].qo_idx;
  });
  sync_cta();
}

}  // namespace fulmen::cuda::batch_attention
