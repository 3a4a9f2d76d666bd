// SPDX-License-Identifier: Apache-2.0
// merge_state, merge_state_in_place, merge_states: attention over a union of disjoint sets of keys, from the results
// over each set (Juravsky et al. 2024, Ye et al. 2024).
//   top = max_i s_i,   w_i = exp(s_i - top),   out = Σ w_i v_i / Σ w_i,   lse = top + ln Σ w_i
// with exp2 and log2 where lse_base is 2. A state with s = -inf is neutral: its v is not read. All neutral: out 0, lse
// -inf. Computes in f32.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>
#include <fulmen/ops/attention.h>

namespace fulmen {

struct MergeStateArgs {
  TensorView v_a;   // [num_tokens, num_heads, head_dim] f32, f16, bf16
  TensorView s_a;   // [num_tokens, num_heads] f32, the lse of v_a
  TensorView v_b;   // like v_a
  TensorView s_b;   // like s_a
  TensorView out;   // [num_tokens, num_heads, head_dim] any float, written; may be v_a or v_b
  TensorView lse;   // [num_tokens, num_heads] f32, written; may be s_a or s_b
  TensorView mask;  // [num_tokens] optional; 0: the row of out and lse is not written
  LogBase lse_base = LogBase::kE;
};

struct MergeStatesArgs {
  TensorView v;    // [num_tokens, num_states, num_heads, head_dim] f32, f16, bf16
  TensorView s;    // [num_tokens, num_states, num_heads] f32
  TensorView out;  // [num_tokens, num_heads, head_dim] any float, written
  TensorView lse;  // [num_tokens, num_heads] f32, written
  LogBase lse_base = LogBase::kE;
  TensorView mask;  // as in MergeStateArgs
};

inline constexpr OpSchema kMergeStateSchema{
    "merge_state",
    {
        {"v_a", "num_tokens num_heads head_dim", kFloats, Access::kRead, Presence::kRequired, "attention over set a"},
        {"s_a", "num_tokens num_heads", kF32, Access::kRead, Presence::kRequired, "its log-sum-exp"},
        {"v_b", "num_tokens num_heads head_dim", kFloats, Access::kRead, Presence::kRequired, "v_a's dtype"},
        {"s_b", "num_tokens num_heads", kF32, Access::kRead, Presence::kRequired, "its log-sum-exp"},
        {"out", "num_tokens num_heads head_dim", kFloats, Access::kWrite, Presence::kRequired, "may be v_a or v_b",
         "v_a v_b"},
        {"lse", "num_tokens num_heads", kF32, Access::kWrite, Presence::kRequired, "may be s_a or s_b", "s_a s_b"},
        {"mask", "num_tokens", kBytes, Access::kRead, Presence::kOptional, "0: the row is left alone"},
    }};
inline constexpr OpSchema kMergeStatesSchema{
    "merge_states",
    {
        {"v", "num_tokens num_states num_heads head_dim", kFloats, Access::kRead, Presence::kRequired,
         "partial results"},
        {"s", "num_tokens num_states num_heads", kF32, Access::kRead, Presence::kRequired, "their log-sum-exps"},
        {"out", "num_tokens num_heads head_dim", kFloats, Access::kWrite, Presence::kRequired, "any float dtype"},
        {"lse", "num_tokens num_heads", kF32, Access::kWrite, Presence::kRequired, "log-sum-exp of the union"},
        {"mask", "num_tokens", kBytes, Access::kRead, Presence::kOptional, "0: the row is left alone"},
    }};

struct MergeDims {
  int64_t num_tokens, num_states, num_heads, head_dim;
};

MergeDims check(const MergeStateArgs& args);  // throws Error{kInvalidArgument}
MergeDims check(const MergeStatesArgs& args);
void merge_state(const MergeStateArgs& args, const Context& context = {});
void merge_states(const MergeStatesArgs& args, const Context& context = {});

// v, s = merge of (v, s) and (v_other, s_other), where mask is not 0.
inline void merge_state_in_place(const TensorView& v, const TensorView& s, const TensorView& v_other,
                                 const TensorView& s_other, const TensorView& mask = {}, LogBase lse_base = LogBase::kE,
                                 const Context& context = {}) {
  merge_state({v, s, v_other, s_other, v, s, mask, lse_base}, context);
}

inline Cost cost(const MergeStateArgs& a) {
  const double n = double(a.out.num_elements()), written = n * size_of(a.out.dtype);
  return {.bytes = 2 * n * size_of(a.v_a.dtype) + written, .flops = 3 * n, .bytes_written = written};
}
inline Cost cost(const MergeStatesArgs& a) {
  const double n = double(a.v.num_elements()), written = double(a.out.num_elements()) * size_of(a.out.dtype);
  return {.bytes = n * size_of(a.v.dtype) + written, .flops = 2 * n, .bytes_written = written};
}

}  // namespace fulmen
