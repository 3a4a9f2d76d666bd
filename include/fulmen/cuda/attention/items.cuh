// SPDX-License-Identifier: Apache-2.0
// Which items of the plan a CTA does: its first one, and while it does one, the next.
#pragma once
#include <fulmen/cuda/attention/sums.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::batch_attention {

// Of the keys that the CTAs of a cluster share.
template <Key K>
__device__ __forceinline__ void take_share(attention::PlanItem& item) {
  constexpr uint32_t kStep = K.tile_kv * num_groups(K);
  const uint32_t size = ctas_per_worker<K>(), num_keys = uint32_t(item.kv_end - item.kv_begin);
  if (size == 1) return;
  const uint32_t share = ((num_keys + kStep * size - 1) >> (last_bit(size) + last_bit(kStep))) * kStep;
  const int64_t begin = item.kv_begin + int64_t(cluster_rank()) * share, end = begin + share;
  item.kv_begin = begin < item.kv_end ? int32_t(begin) : item.kv_end;
  item.kv_end = end < item.kv_end ? int32_t(end) : item.kv_end;
}

// Past L1, as are all numbers that may be read before the predecessor has ended.
__device__ __forceinline__ Record settled_record(const Record* from) {
  struct Parts {
    Bits<16> part[sizeof(Record) / 16];
  } parts;
#pragma unroll
  for (int32_t i = 0; i < int32_t(sizeof(Record) / 16); ++i)
    parts.part[i] = load_coherent_16(reinterpret_cast<const char*>(from) + 16 * i);
  return bit_cast<Record>(parts);
}

__device__ __forceinline__ int64_t settled_number(const IdVector& v, int64_t i) {
  const int32_t* p = static_cast<const int32_t*>(v.data) + (i << int32_t(v.wide));
  const int32_t low = load_coherent_4(p), high = v.wide ? load_coherent_4(p + 1) : low >> 31;
  return int64_t(uint64_t(int64_t(high)) << 32 | uint32_t(low));
}

template <Key K, class Variant>
__device__ __forceinline__ void load_item(const ParamsOf<Variant>& p, int32_t index, Item& item) {
  const int32_t record = p.record_heads.quotient(index);
  Record mine = settled_record(reinterpret_cast<const Record*>(p.workspace + kRecords) + record);
  mine.plan.kv_head += index - record * p.record_heads.divisor;
  take_share<K>(mine.plan);
  static_cast<Record&>(item) = mine;
}

// Of one thread: which item comes after this one; from num_items on there is none.
template <Key K, class Variant>
__device__ __forceinline__ int32_t take_next(const ParamsOf<Variant>& p, PlanOnDevice& plan, const Control& control) {
  const int32_t workers = int32_t(gridDim.x / ctas_per_worker<K>());
  if (ctas_per_worker<K>() > 1) return control.item.index + workers;
  if (p.queue_peers >= 0) return int32_t(fetch_add(&plan.next, 1));
  if (control.num_items > workers) return int32_t(fetch_add(&plan.next, 1)) + workers;
  return control.num_items;
}

// While the first keys are on their way: what comes after this item, and the merge that it belongs to.
template <Key K, class Variant>
__device__ __forceinline__ void look_ahead(const ParamsOf<Variant>& p, PlanOnDevice& plan, Control& control,
                                           uint32_t merge_index) {
  Item& next = control.next;
  if (fresh_thread() == 0) {
    const int32_t index = take_next<K>(p, plan, control);
    next.index = index < control.num_items ? index : -1;
    if (next.index >= 0) load_item<K>(p, index, next);
  }
  if (fresh_thread() == 32 && control.item.plan.slot >= 0) {
    if constexpr (K.warps_q == 1) control.merge_index = merge_index;
    control.merge = reinterpret_cast<const attention::PlanMerge*>(p.workspace + plan.merges)[control.merge_index];
  }
}

// A plan may be settled: written, with its tables, before the predecessor began. It is read without waiting then, and a
// CTA that finds nothing to do leaves at once; one of the grid waits, so that nobody passes the predecessor.
template <Key K, class Variant>
inline constexpr bool kMayBeSettled = kOfCascade<Variant> || K.warps_q == 1;
template <Key K, class Variant>
__device__ __forceinline__ bool is_settled(const ParamsOf<Variant>& p) {
  if constexpr (kMayBeSettled<K, Variant>) return p.is_settled;
  return false;
}
template <Key K>
__device__ __forceinline__ bool leaves_early(const PlanOnDevice& plan) {
  if (int32_t(blockIdx.x / ctas_per_worker<K>()) < load_coherent_4(&plan.num_items)) return false;
  allow_successor();
  if (blockIdx.x == 0) wait_for_predecessor();
  return true;
}
template <Key K>
__device__ __forceinline__ void follow_predecessor(const Common& p) {
  if (p.is_beside)
    fence_device();  // what the predecessor waited for is in memory: past L1, which may hold an older copy
  else
    wait_for_predecessor();
  if (ctas_per_worker<K>() == 1) allow_successor();
}

template <class Above>
__device__ __forceinline__ int32_t num_above(const Above& a) {
  return a.num_levels == nullptr ? a.most : load_coherent_4(a.num_levels);
}

// By thread: the first item and what is to be known of all; where requests' keys begin.
template <Key K, class Variant>
__device__ __forceinline__ void start(const ParamsOf<Variant>& p, PlanOnDevice& plan, Control& control) {
  if (fresh_thread() == 0) {
    const int32_t num_items = load_coherent_4(&plan.num_items);
    int32_t index = int32_t(blockIdx.x >> last_bit(ctas_per_worker<K>()));
    if (p.queue_peers < 0) {  // not one condition with the other's: the record would wait for the number of items
      load_item<K>(p, index, control.item);
    } else {
      // Of few rows, only so many CTAs begin as the plan says; the SMs of the others are for many rows.
      const bool idles = !p.is_beside && int32_t(blockIdx.x) >= plan.num_workers;
      index = idles ? num_items : int32_t(fetch_add(&plan.next, 1));
      if (index < num_items) load_item<K>(p, index, control.item);
    }
    control.num_items = num_items, control.has_queries = 0;
    control.item.index = index < num_items ? index : -1;
  }
  const int32_t thread = fresh_thread();
  if (thread >= 32 && thread - 32 < p.num_bases) {
    if constexpr (kMayBeSettled<K, Variant>)
      control.bases[thread - 32] = settled_number(p.kv_begin, thread - 32);
    else
      control.bases[thread - 32] = p.kv_begin[thread - 32];
  }
  if constexpr (kOfCascade<Variant>)
    if (thread == 31) control.num_above = num_above(p.variant.above);
}

}  // namespace fulmen::cuda::batch_attention
