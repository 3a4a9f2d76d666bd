// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/norm.h"

#include "src/cuda/rows.h"

namespace fulmen::cuda {
namespace {

const float* scale_of(const TensorView& scale) { return scale.defined() ? scale.as<const float>() : nullptr; }

int32_t vec_of(const RmsNormArgs& a) { return std::min(vec_for(Rows(a.input), Rows(a.out)), table_vec(a.weight)); }
int32_t vec_of(const FusedAddRmsNormArgs& a) {
  return std::min(vec_for(Rows(a.input), Rows(a.residual), Rows(a.out)), table_vec(a.weight));
}
int32_t vec_of(const LayerNormArgs& a) {
  return std::min({vec_for(Rows(a.input), Rows(a.out)), table_vec(a.gamma), table_vec(a.beta)});
}

NormKey key_of(const Rows& x, const TensorView& input, const TensorView& weight, const TensorView& out, int32_t vec,
               const Device& device) {
  const RowShape s = choose_row_shape(x.n, vec, x.num_rows(), device.num_sms);
  return {.x = input.dtype, .weight = weight.dtype, .out = out.dtype, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes};
}

// Outputs and weights as models have them: the input's dtype, f32 weights, FP8 where rows are hidden states.
std::vector<NormKey> usual_keys() {
  std::vector<NormKey> keys;
  for_common_rows([&](DType t, int64_t n, const RowShape& s) {
    NormKey key{.x = t, .weight = t, .out = t, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes};
    keys.push_back(key);
    if (t == DType::kF32) return;
    key.weight = DType::kF32;
    keys.push_back(key);
    if (n < 1024) return;
    key.weight = t, key.out = DType::kE4M3;
    keys.push_back(key);
  });
  return keys;
}

}  // namespace

runtime::Refusal RmsNorm::refuses(const Args& a) {
  const Rows x(a.input), out(a.out);
  return refuses_rows(x.even() ? out : x, vec_of(a));
}

Work<rmsnorm::Key, rmsnorm::Params> RmsNorm::work(const Args& a, const Device& device) {
  const int32_t vec = vec_of(a);
  Rows x(a.input), out(a.out);
  flatten_together(x, out);
  const Key key = key_of(x, a.input, a.weight, a.out, vec, device);
  return {.key = key,
          .params = {.x = x,
                     .out = out,
                     .weight = a.weight.data,
                     .out_scale = scale_of(a.out_scale),
                     .rows = x.count(),
                     .eps = a.eps,
                     .bias = a.weight_bias},
          .shape = launch_shape(x.num_rows(), key.shape()),
          .persistent = false};
}

std::vector<NormKey> RmsNorm::common_keys() { return usual_keys(); }

runtime::Refusal FusedAddRmsNorm::refuses(const Args& a) {
  const Rows x(a.input), residual(a.residual), out(a.out);
  return refuses_rows(!x.even() ? x : !residual.even() ? residual : out, vec_of(a));
}

Work<fused_add_rmsnorm::Key, fused_add_rmsnorm::Params> FusedAddRmsNorm::work(const Args& a, const Device& device) {
  const int32_t vec = vec_of(a);
  Rows x(a.input), residual(a.residual), out(a.out);
  flatten_together(x, residual, out);
  const Key key = key_of(x, a.input, a.weight, a.out, vec, device);
  return {.key = key,
          .params = {.x = x,
                     .residual = residual,
                     .out = out,
                     .weight = a.weight.data,
                     .out_scale = scale_of(a.out_scale),
                     .rows = x.count(),
                     .eps = a.eps,
                     .bias = a.weight_bias},
          .shape = launch_shape(x.num_rows(), key.shape()),
          .persistent = false};
}

std::vector<NormKey> FusedAddRmsNorm::common_keys() {
  std::vector<NormKey> keys = usual_keys();  // residual streams are hidden states, never heads
  std::erase_if(keys, [](const NormKey& k) { return k.shape().capacity() < 1024; });
  return keys;
}

runtime::Refusal LayerNorm::refuses(const Args& a) {
  const Rows x(a.input), out(a.out);
  return refuses_rows(x.even() ? out : x, vec_of(a));
}

Work<layernorm::Key, layernorm::Params> LayerNorm::work(const Args& a, const Device& device) {
  const int32_t vec = vec_of(a);
  Rows x(a.input), out(a.out);
  flatten_together(x, out);
  const Key key = key_of(x, a.input, a.gamma, a.out, vec, device);
  return {.key = key,
          .params = {.x = x,
                     .out = out,
                     .gamma = a.gamma.data,
                     .beta = a.beta.data,
                     .out_scale = scale_of(a.out_scale),
                     .rows = x.count(),
                     .eps = a.eps},
          .shape = launch_shape(x.num_rows(), key.shape()),
          .persistent = false};
}

std::vector<NormKey> LayerNorm::common_keys() {
  std::vector<NormKey> keys = usual_keys();
  std::erase_if(keys, [](const NormKey& k) { return size_of(k.out) == 1; });
  return keys;
}

}  // namespace fulmen::cuda
