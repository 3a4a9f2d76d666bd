// SPDX-License-Identifier: Apache-2.0
// One online-softmax step of one row: raw products s[j] = q . k_j of consecutive keys become weights, and the row's
// state moves on. Masks and logit transforms happen here; a row that sees all n keys through neither pays for none of
// them.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/attention/variant.h>
#include <fulmen/cpu/lane_value.h>

FULMEN_CPU_BEGIN

inline constexpr float kMinusInf = -__builtin_inff();

// Bit i: variant keeps key first + i, for i < n <= kLanes. A variant with packed bits brings mask_bits(); one without
// is asked key by key.
template <class Variant>
inline uint32_t keep_bits(const Variant& variant, attention::Row row, int32_t first, int32_t n) {
  if constexpr (requires { variant.mask_bits(row, first, n); }) {
    return variant.mask_bits(row, first, n);
  } else {
    uint32_t bits = 0;
    for (int32_t i = 0; i < n; ++i) bits |= uint32_t(bool(variant.keep(row, first + i))) << i;
    return bits;
  }
}

// s[j] becomes `other` where j is outside `in` or not kept; n is a multiple of kLanes, `in` lies inside 0..n.
template <class Variant>
inline void mask_row(const Variant& variant, attention::Row row, int32_t kv_idx, float* s, int32_t n,
                     attention::KvRange in, float other) {
  const bool has_mask = variant.has_mask();
  for (int32_t j = 0; j < n; j += kLanes) {
    const int32_t begin = in.begin > j ? in.begin - j : 0, end = in.end - j < kLanes ? in.end - j : kLanes;
    if (begin >= end) {
      store(s + j, splat(other));
      continue;
    }
    if (begin == 0 && end == kLanes && !has_mask) continue;
    uint32_t bits = (1u << end) - (1u << begin);
    if (has_mask) bits &= keep_bits(variant, row, kv_idx + j + begin, end - begin) << begin;
    store(s + j, select(mask_from_bits(bits), load(s + j), splat(other)));
  }
}

// s[0..n), n a multiple of kLanes, are the products with keys kv_idx..; only those in `in` (relative to kv_idx, not
// empty) are visible. On return they are weights relative to state.m. Returns the factor for everything summed so far.
template <class Variant>
inline float softmax_step(const Variant& variant, attention::Row row, int32_t kv_idx, float* s, int32_t n,
                          attention::KvRange in, attention::State<float>& state) {
  if (variant.changes_logits()) {
    for (int32_t j = 0; j < n; j += kLanes) {
      store(s + j, variant.logit(row, LaneI32(iota(kv_idx + j)), LaneF32(load(s + j))).x);
    }
  }
  const bool mixed = in.begin > 0 || in.end < n || variant.has_mask();
  if constexpr (!Variant::kSoftmax) {
    for (int32_t j = 0; j < n; j += kLanes) {
      store(s + j, variant.weight(row, LaneI32(iota(kv_idx + j)), LaneF32(load(s + j))).x);
    }
    if (mixed) mask_row(variant, row, kv_idx, s, n, in, 0.f);
    state = {0.f, 1.f};
    return 1.f;
  } else {
    float scale = variant.scale_log2();
    if (mixed) {  // scaled before masking: a scale may be 0 or negative
      for (int32_t j = 0; j < n; j += kLanes) store(s + j, load(s + j) * splat(scale));
      mask_row(variant, row, kv_idx, s, n, in, kMinusInf);
      scale = 1.f;
    }
    F32 top = splat(kMinusInf);
    for (int32_t j = 0; j < n; j += kLanes) top = max(load(s + j) * splat(scale), top);
    const float block_max = reduce_max(top), m = block_max > state.m ? block_max : state.m;
    const float shift = m == kMinusInf ? 0.f : m;  // no key so far: weights of 0, or of NaN
    F32 sum = zeros();
    for (int32_t j = 0; j < n; j += kLanes) {
      const F32 w = exp2(fma(load(s + j), splat(scale), splat(-shift)));
      store(s + j, w);
      sum = sum + w;
    }
    const float keep = m == state.m ? 1.f : reduce_max(exp2(splat(state.m - m)));
    state = {m, state.d * keep + reduce_add(sum)};
    return keep;
  }
}

inline void scale_row(float* o, int32_t n, float factor) {  // n a multiple of kLanes
  for (int32_t j = 0; j < n; j += kLanes) store(o + j, load(o + j) * splat(factor));
}

FULMEN_CPU_END
