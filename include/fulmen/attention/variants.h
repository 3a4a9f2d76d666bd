// SPDX-License-Identifier: Apache-2.0
// The variant behind every built-in entry point: causal, sliding window, soft cap, ALiBi, packed custom mask and sinks
// as run-time fields. One struct, so that options combine and none can be dropped on the way to a kernel.
#pragma once
#include <fulmen/attention/variant.h>

namespace fulmen::attention {

// 1 / x for x > 0, to the last place or so; without a division, for which a GPU calls a function.
FULMEN_FN float inverse(float x) {
  const float y = math::exp2(-math::log2(x));
  return y * (2 - x * y);
}

struct Standard : Defaults {
  float sm_scale = 1;
  float logits_soft_cap = 0;  // 0: off
  int32_t window_left = -1;   // inclusive; -1: unlimited
  bool causal = false;
  const float* alibi_slopes = nullptr;   // [num_qo_heads], or null
  const float* sinks = nullptr;          // [num_qo_heads] natural-log units, or null
  const uint8_t* custom_mask = nullptr;  // packed bits, little endian, 1 = keep; replaces causal; null: none
  const int32_t* mask_indptr = nullptr;  // [batch_size + 1] byte offsets into custom_mask; null: one request

  FULMEN_FN bool has_mask() const { return custom_mask != nullptr; }
  FULMEN_FN bool changes_logits() const { return logits_soft_cap > 0 || alibi_slopes != nullptr; }
  FULMEN_FN bool has_sink() const { return sinks != nullptr; }

  FULMEN_FN KvRange visible(Row row) const {
    return {math::min(row.kv_len, window_begin(row, window_left)),
            causal && custom_mask == nullptr ? causal_end(row) : row.kv_len};
  }
  FULMEN_FN int32_t mask_begin(Row row) const { return mask_indptr == nullptr ? 0 : mask_indptr[row.batch_idx]; }
  // Bit (qo_idx, kv_idx) of the request. A SIMD backend loads its bits through mask_bits() and never calls this.
  FULMEN_FN bool keep(Row row, int32_t kv_idx) const {
    const int64_t bit = int64_t(row.qo_idx) * row.kv_len + kv_idx;
    return (custom_mask[mask_begin(row) + bit / 8] >> (bit % 8) & 1) != 0;
  }
  // Bit i: keep(row, kv_idx + i), for i < n <= 16. Reads no byte beyond that of the last bit asked for.
  FULMEN_FN uint32_t mask_bits(Row row, int32_t kv_idx, int32_t n) const {
    const int64_t bit = int64_t(row.qo_idx) * row.kv_len + kv_idx;
    const uint8_t* const bytes = custom_mask + mask_begin(row) + bit / 8;
    const int32_t skip = int32_t(bit % 8);
    uint32_t word = 0;
    for (int32_t i = 0; i * 8 < skip + n; ++i) word |= uint32_t(bytes[i]) << (i * 8);
    return word >> skip & ((1u << n) - 1u);
  }
  // The natural-log logit where soft cap or ALiBi is on; raw q·k where not, so that the scale folds into exp2's
  // argument.
  template <class F, class I>
  FULMEN_FN F logit(Row row, I kv_idx, F x) const {
    using math::cast_to, math::tanh;
    if (!changes_logits()) return x;
    x = x * F(sm_scale);
    if (logits_soft_cap > 0) x = F(logits_soft_cap) * tanh(x * F(inverse(logits_soft_cap)));
    if (alibi_slopes != nullptr) x = x + F(alibi_slopes[row.qo_head]) * cast_to(F(), kv_idx - I(row.qo_idx));
    return x;
  }
  FULMEN_FN float scale_log2() const { return changes_logits() ? math::kLog2e : sm_scale * math::kLog2e; }
  FULMEN_FN float sink(Row row) const { return sinks[row.qo_head]; }
};

}  // namespace fulmen::attention
