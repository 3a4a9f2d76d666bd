// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/activation.h"

#include "src/cuda/rows.h"

namespace fulmen::cuda {

using act_and_mul::Gate;
static_assert(int32_t(Gate::kSilu) == int32_t(Activation::kSilu) &&
              int32_t(Gate::kGelu) == int32_t(Activation::kGelu) &&
              int32_t(Gate::kGeluTanh) == int32_t(Activation::kGeluTanh));

runtime::Refusal ActAndMul::refuses(const Args& a) {
  const Rows x(a.input), out(a.out);
  if (out.n > 0x7fffffff) return "hidden_size is beyond 2147483647";
  if ((!x.even() || !out.even()) && out.num_rows() > 0x7fffffff)
    return "more than 2147483647 rows of unevenly strided heads";
  return {};
}

Work<act_and_mul::Key, act_and_mul::Params> ActAndMul::work(const Args& a, const Device&) {
  Rows x(a.input), out(a.out);
  const int32_t vec = vec_for(out, x);
  flatten_together(x, out);
  const int64_t num_vecs = out.num_rows() * (out.n / vec);
  const int64_t ctas = math::ceil_div(num_vecs, int64_t(act_and_mul::vecs_per_cta()));
  return {.key = {.x = a.input.dtype, .gate = Gate(int32_t(a.activation)), .vec = vec},
          .params = {.x = x, .out = out, .rows = out.count(), .num_vecs = num_vecs},
          .shape = {.grid = uint32_t(ctas), .num_threads = act_and_mul::kThreads},
          .persistent = false};
}

std::vector<act_and_mul::Key> ActAndMul::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (Gate g : {Gate::kSilu, Gate::kGelu, Gate::kGeluTanh})
      keys.push_back({.x = t, .gate = g, .vec = 16 / size_of(t)});
  return keys;
}

}  // namespace fulmen::cuda
