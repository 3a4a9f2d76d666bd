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

// All have one shape: those whose heads lie unevenly are the ones that may be refused.
template <class... R>
std::string refuses_all(int32_t vec, const R&... rows) {
  const Rows* all[] = {&rows...};
  const auto uneven = std::find_if(std::begin(all), std::end(all), [](const Rows* r) { return !r->even(); });
  return refuses_rows(uneven == std::end(all) ? *all[0] : **uneven, vec);
}

// What the three have in common. p: with what x and out do not say; x and out: flattened if they can be.
template <class Args, class Params>
Work<NormKey, Params> work_of(const Args& a, const TensorView& weight, int32_t vec, const Rows& x, const Rows& out,
                              const Device& device, Params p) {
  const RowShape s = choose_row_shape(x.n, vec, x.num_rows(), device.num_sms);
  p.x = x, p.out = out, p.out_scale = scale_of(a.out_scale), p.rows = x.count(), p.eps = a.eps;
  const NormKey key{
      .x = a.input.dtype, .weight = weight.dtype, .out = a.out.dtype, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes};
  return {.key = key, .params = p, .shape = launch_shape(x.num_rows(), s), .persistent = false};
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

runtime::Refusal RmsNorm::refuses(const Args& a) { return refuses_all(vec_of(a), Rows(a.input), Rows(a.out)); }

Work<rmsnorm::Key, rmsnorm::Params> RmsNorm::work(const Args& a, const Device& device) {
  Rows x(a.input), out(a.out);
  flatten_together(x, out);
  Params p{};
  p.weight = a.weight.data, p.bias = a.weight_bias;
  return work_of(a, a.weight, vec_of(a), x, out, device, p);
}

std::vector<NormKey> RmsNorm::common_keys() { return usual_keys(); }

runtime::Refusal FusedAddRmsNorm::refuses(const Args& a) {
  return refuses_all(vec_of(a), Rows(a.input), Rows(a.residual), Rows(a.out));
}

Work<fused_add_rmsnorm::Key, fused_add_rmsnorm::Params> FusedAddRmsNorm::work(const Args& a, const Device& device) {
  Rows x(a.input), residual(a.residual), out(a.out);
  flatten_together(x, residual, out);
  Params p{};
  p.residual = residual, p.weight = a.weight.data, p.bias = a.weight_bias;
  return work_of(a, a.weight, vec_of(a), x, out, device, p);
}

std::vector<NormKey> FusedAddRmsNorm::common_keys() {
  std::vector<NormKey> keys = usual_keys();  // residual streams are hidden states, never heads
  std::erase_if(keys, [](const NormKey& k) { return k.shape().capacity() < 1024; });
  return keys;
}

runtime::Refusal LayerNorm::refuses(const Args& a) { return refuses_all(vec_of(a), Rows(a.input), Rows(a.out)); }

Work<layernorm::Key, layernorm::Params> LayerNorm::work(const Args& a, const Device& device) {
  Rows x(a.input), out(a.out);
  flatten_together(x, out);
  Params p{};
  p.gamma = a.gamma.data, p.beta = a.beta.data;
  return work_of(a, a.gamma, vec_of(a), x, out, device, p);
}

std::vector<NormKey> LayerNorm::common_keys() {
  std::vector<NormKey> keys = usual_keys();
  std::erase_if(keys, [](const NormKey& k) { return size_of(k.out) == 1; });
  return keys;
}

}  // namespace fulmen::cuda
