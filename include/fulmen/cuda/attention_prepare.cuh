// SPDX-License-Identifier: Apache-2.0
// Plans attention on the device, in one CTA, or in a cluster where there are many tiles:
//
//   index tensors -> requests -> tiles -> costs by bucket -> limit of a piece -> records by bucket, longest first
//
// Records within a bucket, and slots, are taken in any order; nothing that is computed later depends on it. Launched by
// src/cuda/attention_prepare.cc.
#pragma once
#include <fulmen/cuda/attention/prepare_ahead.cuh>
#include <fulmen/cuda/attention/prepare_few.cuh>
#include <fulmen/cuda/attention/prepare_kinds.cuh>
#include <fulmen/cuda/attention/prepare_many.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>
#include <fulmen/cuda/ptx/touch.cuh>

namespace fulmen::cuda::attention_prepare {

template <Key K>
__device__ __forceinline__ void write_head(const Params& p) {
  if (cta_rank() != 0) return;
  const int32_t num_workers = beginning_workers<K>(p);
  if (threadIdx.x != 0) return;
  batch_attention::PlanOnDevice head = p.head;
  head.num_items = int32_t(math::min(shared().num_records, uint32_t(p.max_records))) * p.num_kv_heads;
  head.num_workers = num_workers;
  head.next = head.finished = 0;
  head.slot_rows = shared().slot_rows, head.slots_per_head = shared().max_slots;
  *reinterpret_cast<batch_attention::PlanOnDevice*>(p.workspace) = head;
}

template <Key K>
__device__ __forceinline__ void run(const Params& p) {
  touch(p);
  if constexpr (K.tiles > 0) clear_few<K>();
  wait_for_predecessor();
  if (K.tiles > 0 && blockIdx.x > 0) return fetch_ahead<K>(p);
  if constexpr (K.tiles > 0) {
    if (!plan_few<K>(p)) sync_cta(), plan_many<Key{K.threads, 0}>(p);
  } else {
    clear_lists<K>(p);
    plan_many<K>(p);
    allow_successor();
  }
  write_head<K>(p);
}

}  // namespace fulmen::cuda::attention_prepare
