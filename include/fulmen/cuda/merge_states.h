// SPDX-License-Identifier: Apache-2.0
// What the merge_states kernel and the code that launches it share; fulmen/ops/merge_state.h says what it computes. It
// serves merge_state too: two states in two tensors.
#pragma once
#include <fulmen/core/dtype.h>
#include <fulmen/cuda/row_shape.h>
#include <fulmen/cuda/row_tensor.h>

namespace fulmen::cuda::merge_states {

struct Key {
  DType v = DType::kF32, out = DType::kF32;
  int32_t vec = 1, vecs = 1, lanes = 32;
  int32_t batch = 4;  // states whose vectors are in flight together; 2: there are two, merge_state

  FULMEN_FN constexpr RowShape shape() const { return {vec, vecs, lanes}; }
  constexpr bool operator==(const Key&) const = default;
  template <class K, class F>
  static constexpr void for_fields(K& k, F&& f) {
    f("v", k.v), f("out", k.out), f("vec", k.vec), f("vecs", k.vecs), f("lanes", k.lanes), f("batch", k.batch);
  }
};

FULMEN_FN constexpr int32_t num_threads(const Key& k) { return k.shape().num_threads(); }

struct Params {
  RowTensor v, v_rest, out;  // state 0; state 1, followed by the others at v_state; rows are (token, head)
  RowTensor s, s_rest, lse;  // rows of one f32
  const uint8_t* mask;       // per token; null: all
  int64_t v_state, s_state;  // elements from a state to the next
  RowCount rows;
  int32_t num_states;
  float to_log2;  // log2 e where lse is natural
};

}  // namespace fulmen::cuda::merge_states
