// SPDX-License-Identifier: Apache-2.0
// What a user may change about attention, written once. The reference calls it with F = double, the CPU kernels with a
// SIMD vector, the CUDA kernels with float. A variant is a struct derived from Defaults; its fields are its parameters;
// its methods hide these defaults. Which keys a row sees, whether a key is kept, what happens to a logit, the scale,
// the sink: nothing else differs between attention variants, and no kernel knows a variant by name.
//
//   z_j = logit(row, j, q·k_j)      for every j in visible(row) with keep(row, j)
//   w_j = exp2(scale_log2() * z_j)  (kSoftmax; else w_j = weight(row, j, z_j), not normalised)
//   out = Σ w_j v_j / (Σ w_j + exp(sink(row)))      lse = ln(Σ w_j + exp(sink(row)))
//
// A text (attention/call.h) is called with F = float and needs no templates.
//
// A variant with kFinishes has the last word instead of that division: scale = update(row, m, d) may change the state
// (Σ w_j = d exp2(m); without softmax m = 0, and d = 1 or, for a row without keys, 0), and
// out = finish(row, Σ w_j v_j exp2(-m), m, d, scale) for each element; lse = m + log2(d). Its sink() is not asked.
#pragma once
#include <fulmen/core/math.h>

namespace fulmen::attention {

// One query row of one head. Positions count from the request's first token; qo_idx is the index inside the query
// chunk.
struct Row {
  int32_t batch_idx, qo_idx, qo_head, kv_head, qo_len, kv_len;
};
struct KvRange {
  int32_t begin, end;
};

struct Defaults {
  static constexpr bool kSoftmax = true;
  static constexpr bool kFinishes = false;
  // Asked once per kernel, not per key. A variant that knows at compile time returns a constant, and the code folds.
  FULMEN_FN bool has_mask() const { return false; }        // keep() is asked for every visible key
  FULMEN_FN bool changes_logits() const { return false; }  // logit() is not the identity
  FULMEN_FN bool has_sink() const { return false; }        // sink() is added to the denominator once

  // Keys outside are never read. begin and end must not decrease with qo_idx: tiles are classified by their corner
  // rows.
  FULMEN_FN KvRange visible(Row row) const { return {0, row.kv_len}; }
  template <class I>
  FULMEN_FN auto keep(Row, I kv_idx) const {
    return kv_idx == kv_idx;
  }
  template <class F, class I>
  FULMEN_FN F logit(Row, I, F x) const {
    return x;
  }
  FULMEN_FN float sink(Row) const { return 0; }  // natural-log units
};

// The part of [0, kv_len) that a causal row sees, aligned to the bottom right; empty before the first key.
FULMEN_FN int32_t causal_end(Row row) {
  return math::max(0, math::min(row.kv_len, row.kv_len - row.qo_len + row.qo_idx + 1));
}
// First key of a window of `window_left` keys before the row's own position (inclusive); -1 is unlimited.
FULMEN_FN int32_t window_begin(Row row, int32_t window_left) {
  return window_left < 0 ? 0 : math::max(0, row.kv_len - row.qo_len + row.qo_idx - window_left);
}

}  // namespace fulmen::attention
