// SPDX-License-Identifier: Apache-2.0
// The host's side of a variant that is given as text: its table, compiled with the text by the host's compiler at run
// time. src/cpu/text.cc prints the unit. A variant's methods are called with float and int32_t, as on a GPU, in loops
// over up to kBlock keys of one row that the compiler makes vectors of: their arrays are locals, and so is the variant,
// so nothing that is stored to can be part of what is read.
#pragma once
#include <fulmen/attention/variant_table.h>

#include <type_traits>

namespace fulmen::cpu::text {

using attention::kInfinity;
using attention::KvRange;
using attention::Row;
using attention::State;
using attention::VariantFacts;
using attention::VariantTable;

inline constexpr int32_t kBlock = 64, kWide = 16;

// A variant's methods for one row. A variant that does better than asking itself for each key brings of_row().
template <class V>
struct OneRow {
  V v;
  Row row;
  float logit(int32_t kv_idx, float x) const { return v.logit(row, kv_idx, x); }
  float weight(int32_t kv_idx, float x) const { return v.weight(row, kv_idx, x); }
  bool keep(int32_t kv_idx) const { return bool(v.keep(row, kv_idx)); }
  float update(float& m, float& d) const { return v.update(row, m, d); }
  float finish(float o, float m, float d, float scale) const { return v.finish(row, o, m, d, scale); }
};
template <class V>
auto one_row(const V& v, const Row& row) {
  if constexpr (requires { v.of_row(row); })
    return v.of_row(row);
  else
    return OneRow<V>{v, row};
}

// s[0..n) of visible keys kv_idx.. become logits in log2 units, or weights where there is no softmax. What is not kept
// becomes `other`.
template <class V>
__attribute__((flatten, noinline)) void transform(const V& given, const Row& of, int32_t kv_idx, float* s, int32_t n,
                                                  float other) {
  const V v = given;
  auto row = one_row(v, of);
  float x[kBlock];
  for (int32_t i = 0; i < n; ++i) x[i] = s[i];
  if (v.changes_logits())
    for (int32_t i = 0; i < n; ++i) x[i] = row.logit(kv_idx + i, x[i]);
  if constexpr (V::kSoftmax) {
    const float scale = v.scale_log2();
    for (int32_t i = 0; i < n; ++i) x[i] *= scale;
  } else {
    for (int32_t i = 0; i < n; ++i) x[i] = row.weight(kv_idx + i, x[i]);
  }
  if (v.has_mask()) {
    uint8_t kept[kBlock];
    for (int32_t i = 0; i < n; ++i) kept[i] = row.keep(kv_idx + i);
    for (int32_t i = 0; i < n; ++i) x[i] = kept[i] != 0 ? x[i] : other;
  }
  for (int32_t i = 0; i < n; ++i) s[i] = x[i];
}

inline float greatest(const float* s, int32_t n) {
  float top[kWide];
  for (int32_t i = 0; i < kWide; ++i) top[i] = -kInfinity;
  int32_t j = 0;
  for (; j + kWide <= n; j += kWide)
    for (int32_t i = 0; i < kWide; ++i) top[i] = s[j + i] > top[i] ? s[j + i] : top[i];
  for (; j < n; ++j) top[0] = s[j] > top[0] ? s[j] : top[0];
  for (int32_t i = 1; i < kWide; ++i) top[0] = top[i] > top[0] ? top[i] : top[0];
  return top[0];
}

// s becomes exp2(s - m); returns the sum.
inline float weigh(float* s, int32_t n, float m) {
  float sum[kWide] = {};
  int32_t j = 0;
  for (; j + kWide <= n; j += kWide)
    for (int32_t i = 0; i < kWide; ++i) {
      const float w = math::exp2(s[j + i] - m);
      s[j + i] = w;
      sum[i] += w;
    }
  for (; j < n; ++j) sum[0] += s[j] = math::exp2(s[j] - m);
  for (int32_t half = kWide / 2; half > 0; half /= 2)
    for (int32_t i = 0; i < half; ++i) sum[i] += sum[i + half];
  return sum[0];
}

template <class V>
float step(const void* variant, const Row& row, int32_t kv_idx, float* s, int32_t n, KvRange in, State<float>& state) {
  const V& v = *static_cast<const V*>(variant);
  const float other = V::kSoftmax ? -kInfinity : 0;
  for (int32_t j = 0; j < in.begin; ++j) s[j] = other;
  for (int32_t j = in.end; j < n; ++j) s[j] = other;
  for (int32_t j = in.begin; j < in.end; j += kBlock)
    transform(v, row, kv_idx + j, s + j, in.end - j < kBlock ? in.end - j : kBlock, other);
  if constexpr (!V::kSoftmax) {
    state = {0, 1};
    return 1;
  }
  const float top = greatest(s, n), m = top > state.m ? top : state.m;
  if (m == -kInfinity) {  // no key so far
    for (int32_t j = 0; j < n; ++j) s[j] = 0;
    return 1;
  }
  return state.merge({m, weigh(s, n, m)}).keep;
}

template <class V>
__attribute__((flatten)) float finish(const void* variant, const Row& of, float* o, int32_t n, float v_scale,
                                      State<float>& state) {
  const V v = *static_cast<const V*>(variant);
  if constexpr (!V::kFinishes) {
    return attention::finish_row(v, of, o, n, v_scale, state);
  } else {
    auto row = one_row(v, of);
    float m = V::kSoftmax ? state.m : 0, d = state.d;
    const float scale = row.update(m, d);
    for (int32_t i = 0; i < n; ++i) o[i] = row.finish(o[i], m, d, scale);
    state = {m, d};
    return v_scale;
  }
}

template <class V>
VariantTable table_of() {
  static_assert(std::is_trivially_copyable_v<V>, "a variant is copied as bytes: it must be trivially copyable");
  VariantTable t;
  t.num_bytes = std::is_empty_v<V> ? 0 : int32_t(sizeof(V)), t.alignment = int32_t(alignof(V));
  t.is_softmax = V::kSoftmax ? 1 : 0;
  t.facts = [](const void* variant) {
    const V& v = *static_cast<const V*>(variant);
    VariantFacts facts;
    if constexpr (V::kSoftmax) facts.scale_log2 = v.scale_log2();
    facts.has_mask = v.has_mask() ? 1 : 0;
    facts.asks = v.changes_logits() || !V::kSoftmax ? 1 : 0;
    return facts;
  };
  t.visible = [](const void* variant, const Row& row) { return static_cast<const V*>(variant)->visible(row); };
  t.step = &step<V>;
  t.finish = &finish<V>;
  return t;
}

}  // namespace fulmen::cpu::text
