// SPDX-License-Identifier: Apache-2.0
// A variant behind a table (attention/variant_table.h) for the kernels of this folder, which so are compiled once for
// all variants of the library's and of its users'; and the table of a variant that is compiled here.
#pragma once
#include <fulmen/attention/variant_table.h>
#include <fulmen/cpu/attention/softmax.h>

FULMEN_CPU_BEGIN

class AnyVariant {
 public:
  static constexpr bool kSoftmax = true, kFinishes = false;  // the table decides

  // Both must outlive this.
  AnyVariant(const attention::VariantTable& table, const void* fields)
      : table_(table), fields_(fields), facts_(table.facts(fields)) {}

  bool has_mask() const { return facts_.has_mask != 0; }
  bool changes_logits() const { return facts_.asks != 0; }
  float scale_log2() const { return facts_.scale_log2; }
  attention::KvRange visible(attention::Row row) const { return table_.visible(fields_, row); }
  bool is_softmax() const { return table_.is_softmax != 0; }
  float step(const attention::Row& row, int32_t kv_idx, float* s, int32_t n, attention::KvRange in,
             attention::State<float>& state) const {
    return table_.step(fields_, row, kv_idx, s, n, in, state);
  }
  float finish(const attention::Row& row, float* o, int32_t n, float v_scale, attention::State<float>& state) const {
    return table_.finish(fields_, row, o, n, v_scale, state);
  }

 private:
  const attention::VariantTable& table_;
  const void* fields_;
  attention::VariantFacts facts_;
};

inline float softmax_step(const AnyVariant& variant, attention::Row row, int32_t kv_idx, float* s, int32_t n,
                          attention::KvRange in, attention::State<float>& state) {
  return variant.step(row, kv_idx, s, n, in, state);
}
inline float finish_row(const AnyVariant& variant, attention::Row row, float* o, int32_t n, float v_scale,
                        attention::State<float>& state) {
  return variant.finish(row, o, n, v_scale, state);
}
inline bool is_softmax(const AnyVariant& variant) { return variant.is_softmax(); }
template <class V>
inline bool is_softmax(const V&) {
  return V::kSoftmax;
}

// V: with softmax, of this library's.
template <class V>
const attention::VariantTable& table_of() {
  using attention::KvRange, attention::Row, attention::VariantFacts;
  static const attention::VariantTable table{
      .num_bytes = int32_t(sizeof(V)),
      .alignment = int32_t(alignof(V)),
      .facts =
          [](const void* v) {
            const V& variant = *static_cast<const V*>(v);
            return VariantFacts{variant.scale_log2(), variant.has_mask() ? 1 : 0, variant.changes_logits() ? 1 : 0};
          },
      .visible = [](const void* v, const Row& row) { return static_cast<const V*>(v)->visible(row); },
      .step =
          [](const void* v, const Row& row, int32_t kv_idx, float* s, int32_t n, KvRange in,
             attention::State<float>& state) {
            return softmax_step(*static_cast<const V*>(v), row, kv_idx, s, n, in, state);
          },
      .finish =
          [](const void* v, const Row& row, float* o, int32_t n, float v_scale, attention::State<float>& state) {
            return attention::finish_row(*static_cast<const V*>(v), row, o, n, v_scale, state);
          }};
  return table;
}

FULMEN_CPU_END
