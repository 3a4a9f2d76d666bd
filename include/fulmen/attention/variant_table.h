// SPDX-License-Identifier: Apache-2.0
// A variant as a table of functions over its bytes: what the CPU's kernels ask of one that they were not compiled with.
// One call serves a row and a tile of keys. Both sides may come from different compilers, so nothing here but numbers,
// pointers and structs of them.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/attention/variant.h>

namespace fulmen::attention {

// Asked once per launch.
struct VariantFacts {
  float scale_log2 = 1;
  int32_t has_mask = 0;
  int32_t asks = 0;  // a tile whose keys are all visible is not plain softmax of scale_log2 either
};

struct VariantTable {
  static constexpr int32_t kAbi = 1;

  int32_t abi = kAbi;
  int32_t num_bytes = 0, alignment = 1;  // of the variant; an empty one has 0 bytes
  int32_t is_softmax = 1;                // its kSoftmax
  VariantFacts (*facts)(const void* variant) = nullptr;
  KvRange (*visible)(const void* variant, const Row& row) = nullptr;
  // s[0..n) are products with keys kv_idx..; only those in `in` (relative to kv_idx, not empty) are visible. On return
  // they are weights relative to state.m. Returns the factor for everything summed so far.
  float (*step)(const void* variant, const Row& row, int32_t kv_idx, float* s, int32_t n, KvRange in,
                State<float>& state) = nullptr;
  // The last word on a row: o[0..n) is its sum, v_scale the caller's. Returns the factor that is still to be applied.
  float (*finish)(const void* variant, const Row& row, float* o, int32_t n, float v_scale,
                  State<float>& state) = nullptr;
};

// What finish does, for every variant. o stays as it is unless the variant has kFinishes.
template <class V>
FULMEN_FN float finish_row(const V& variant, Row row, float* o, int32_t n, float v_scale, State<float>& state) {
  if constexpr (V::kFinishes) {
    if constexpr (!V::kSoftmax) state.m = 0;
    const float scale = variant.update(row, state.m, state.d);
    for (int32_t i = 0; i < n; ++i) o[i] = variant.finish(row, o[i], state.m, state.d, scale);
    return v_scale;
  } else if constexpr (V::kSoftmax) {
    if (variant.has_sink()) v_scale *= state.merge({variant.sink(row) * math::kLog2e, 1}).keep;
    return state.d == 0 ? 0 : v_scale / state.d;
  }
  return v_scale;
}

// Takes the state of other keys into a row's. Without softmax it says only whether the row saw a key.
FULMEN_FN State<float>::Factors join_states(bool is_softmax, State<float>& state, State<float> next) {
  if (is_softmax) return state.merge(next);
  if (next.d > state.d) state = next;
  return {1, 1};
}

}  // namespace fulmen::attention
