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
#include <fulmen/cuda/attention/prepare_many.cuh>
#include <fulmen/cuda/ptx/dependent_launch.cuh>

namespace fulmen::cuda::attention_prepare {

__device__ __forceinline__ void write_head(const Params& p) {
  if (cta_rank() != 0 || threadIdx.x != 0) return;
  batch_attention::PlanOnDevice head = p.head;
  head.num_items = int32_t(math::min(shared().num_records, uint32_t(p.max_records))) * p.num_kv_heads;
  head.num_workers = p.num_workers;
  head.next = head.finished = 0;
  head.slot_rows = shared().slot_rows, head.slots_per_head = shared().max_slots;
  *reinterpret_cast<batch_attention::PlanOnDevice*>(p.workspace) = head;
}

// Brings the parameters to the constants' cache: later each line of them would be waited for by itself.
__device__ __forceinline__ void touch(const Params& p) {
  constexpr int32_t kLineWords = 16;
  const int32_t* words = reinterpret_cast<const int32_t*>(&p);
  int32_t bits = 0;
#pragma unroll
  for (int32_t i = 0; i < int32_t(sizeof p) / 4; i += kLineWords) bits |= words[i];
  forget(bits);
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
  write_head(p);
}

}  // namespace fulmen::cuda::attention_prepare
