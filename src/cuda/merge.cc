// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/merge.h"

#include "src/cuda/rows.h"

namespace fulmen::cuda {
namespace {

constexpr float kLog2E = 1.44269504f;
constexpr int64_t kMostRows = 0x7fffffff;
constexpr int32_t kMostVecs = 32;  // per lane: 1024 elements even where nothing is aligned

float to_log2(LogBase base) { return base == LogBase::k2 ? 1 : kLog2E; }

// [num_tokens, num_heads] of one f32 each.
RowTensor scalars(const TensorView& t, int64_t token_stride, int64_t head_stride) {
  return {t.data, token_stride, head_stride};
}

// Two states: four vectors of each per lane, so that a lane has eight loads in flight. lanes 0: too long for one warp.
RowShape shape_for(int64_t n, int32_t vec, bool two) {
  const int64_t num_vecs = math::ceil_div(n, vec);
  int32_t lanes = 4;
  while (lanes < 32 && lanes * (two ? 4 : 1) < num_vecs) lanes *= 2;
  for (int32_t vecs = 1; vecs <= kMostVecs; vecs *= 2)
    if (int64_t(vecs) * lanes >= num_vecs) return {vec, vecs, lanes};
  return {vec, 0, 0};
}

int32_t batch_for(const RowShape& s, bool two) { return two ? 2 : s.vecs <= 4 ? 4 : 1; }

std::string refuses_shape(int64_t n, int32_t vec, int64_t num_rows) {
  if (shape_for(n, vec, true).lanes == 0)
    return "head_dim " + std::to_string(n) + " exceeds " + std::to_string(int64_t(vec) * 32 * kMostVecs) +
           ", the most at this alignment";
  return num_rows > kMostRows ? "more than 2147483647 pairs of token and head" : "";
}

// A state's rows as [num_tokens, num_heads, head_dim].
TensorView first_state(const TensorView& v) {
  TensorView t = v;
  t.rank = 3;
  for (int32_t i = 1; i < 3; ++i) t.shape[i] = v.shape[i + 1], t.strides[i] = v.strides[i + 1];
  return t;
}

int32_t vec_of(const MergeStateArgs& a) { return vec_for(Rows(a.v_a), Rows(a.v_b), Rows(a.out)); }
int32_t vec_of(const MergeStatesArgs& a) {
  const int32_t size = size_of(a.v.dtype);
  const uint64_t state = a.v.shape[1] > 1 ? uint64_t(a.v.strides[1]) * uint64_t(size) : 0;
  return std::min(vec_for(Rows(first_state(a.v)), Rows(a.out)), max_vec(state, size));
}

// Heads that follow one another like tokens need no division; a mask is per token.
void flatten(merge_states::Params& p) {
  RowTensor* all[] = {&p.v, &p.v_rest, &p.out, &p.s, &p.s_rest, &p.lse};
  const int64_t heads = p.rows.num_heads;
  if (p.mask != nullptr || heads == 1) return;
  for (const RowTensor* t : all)
    if (t->token_stride != heads * t->head_stride && p.rows.num_rows > heads) return;
  for (RowTensor* t : all) t->token_stride = t->head_stride;
  p.rows.num_heads = 1;
}

Work<merge_states::Key, merge_states::Params> work_of(merge_states::Params p, DType v, DType out, int32_t vec) {
  flatten(p);
  const bool two = p.num_states == 2;
  const RowShape s = shape_for(p.rows.n, vec, two);
  return {.key = {.v = v, .out = out, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes, .batch = batch_for(s, two)},
          .params = p,
          .shape = launch_shape(p.rows.num_rows, s),
          .persistent = false};
}

}  // namespace

runtime::Refusal MergeState::refuses(const Args& a) {
  return refuses_shape(a.out.shape[2], vec_of(a), a.out.shape[0] * a.out.shape[1]);
}

Work<merge_states::Key, merge_states::Params> MergeState::work(const Args& a, const Device&) {
  const Rows out(a.out);
  return work_of({.v = Rows(a.v_a),
                  .v_rest = Rows(a.v_b),
                  .out = out,
                  .s = scalars(a.s_a, a.s_a.strides[0], a.s_a.strides[1]),
                  .s_rest = scalars(a.s_b, a.s_b.strides[0], a.s_b.strides[1]),
                  .lse = scalars(a.lse, a.lse.strides[0], a.lse.strides[1]),
                  .mask = a.mask.defined() ? a.mask.as<const uint8_t>() : nullptr,
                  .v_state = 0,
                  .s_state = 0,
                  .rows = out.count(),
                  .num_states = 2,
                  .to_log2 = to_log2(a.lse_base)},
                 a.v_a.dtype, a.out.dtype, vec_of(a));
}

runtime::Refusal MergeStates::refuses(const Args& a) {
  if (a.v.shape[1] > kMostRows) return "more than 2147483647 states";
  return refuses_shape(a.out.shape[2], vec_of(a), a.out.shape[0] * a.out.shape[1]);
}

Work<merge_states::Key, merge_states::Params> MergeStates::work(const Args& a, const Device&) {
  const Rows v(first_state(a.v)), out(a.out);
  const RowTensor s = scalars(a.s, a.s.strides[0], a.s.strides[2]);
  Params p{.v = v,
           .v_rest = v,
           .out = out,
           .s = s,
           .s_rest = s,
           .lse = scalars(a.lse, a.lse.strides[0], a.lse.strides[1]),
           .mask = a.mask.defined() ? a.mask.as<const uint8_t>() : nullptr,
           .v_state = a.v.strides[1],
           .s_state = a.s.strides[1],
           .rows = out.count(),
           .num_states = int32_t(a.v.shape[1]),
           .to_log2 = to_log2(a.lse_base)};
  p.v_rest.data = static_cast<char*>(v.data) + a.v.strides[1] * size_of(a.v.dtype);
  p.s_rest.data = static_cast<char*>(s.data) + a.s.strides[1] * 4;
  return work_of(p, a.v.dtype, a.out.dtype, vec_of(a));
}

std::vector<merge_states::Key> MergeStates::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (int64_t n : {64, 128, 256, 512})
      for (DType out : {t, DType::kF16, DType::kBF16})
        for (bool two : {true, false}) {
          if (out == DType::kF16 && t == DType::kBF16) continue;
          const RowShape s = shape_for(n, 16 / size_of(t), two);
          keys.push_back(
              {.v = t, .out = out, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes, .batch = batch_for(s, two)});
        }
  return keys;
}

}  // namespace fulmen::cuda
