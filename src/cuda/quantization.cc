// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/quantization.h"

#include "src/cuda/rows.h"

namespace fulmen::cuda {
namespace {

using per_tensor_quant_fp8::Step;
using PerTensorWork = Work<per_tensor_quant_fp8::Key, per_tensor_quant_fp8::Params>;

PerTensorWork per_tensor(const PerTensorQuantFp8Args& a, const Device& device, Step step) {
  Rows x(a.input), out(a.out);
  const int32_t vec = vec_for(x, out);
  flatten_together(x, out);
  const int64_t num_vecs = x.num_rows() * (x.n / vec);
  int64_t ctas = math::ceil_div(num_vecs, int64_t(per_tensor_quant_fp8::vecs_per_cta(step)));
  if (step == Step::kScale) ctas = 1;
  if (step == Step::kLargest) ctas = std::min<int64_t>(ctas, 4 * device.num_sms);
  const per_tensor_quant_fp8::Key key{
      .x = a.input.dtype, .out = a.out.dtype, .step = step, .vec = step == Step::kScale ? 1 : vec};
  return {.key = key,
          .params = {.x = x, .out = out, .scale = a.scale.as<float>(), .rows = x.count(), .num_vecs = num_vecs},
          .shape = {.grid = uint32_t(ctas), .num_threads = uint32_t(num_threads(key))},
          .persistent = false};
}

constexpr int32_t kShortRowLoads = 2;  // a warp's scales then fill half a sector

// Groups as rows: [num_tokens, num_groups, group_size].
Rows groups_of(const TensorView& t, int64_t group_size) {
  Rows r(t);
  r.num_heads = r.n / group_size, r.n = group_size, r.head_stride = group_size;
  return r;
}

}  // namespace

runtime::Refusal PerTensorQuantFp8::refuses(const Args& a) {
  const Rows x(a.input), out(a.out);
  if (x.n > 0x7fffffff) return "hidden_size is beyond 2147483647";
  if ((!x.even() || !out.even()) && out.num_rows() > 0x7fffffff)
    return "more than 2147483647 rows of unevenly strided heads";
  return {};
}

void PerTensorQuantFp8::launch(const Args& a, const Device& device, const Context& context) {
  if (a.dynamic) {
    const CurrentContext current(device.primary);
    check(driver::api().memory_set(driver::Pointer(a.scale.data), 0, 4, static_cast<driver::Stream>(context.stream)),
          "per_tensor_quant_fp8: cuMemsetD8Async");
    run(kName, per_tensor(a, device, Step::kLargest), device, context);
    run(kName, per_tensor(a, device, Step::kScale), device, context);
  }
  run(kName, per_tensor(a, device, Step::kQuantize), device, context);
}

void PerTensorQuantFp8::prepare(const Args& a, const Device& device) {
  for (Step step : {Step::kLargest, Step::kScale, Step::kQuantize})
    if (a.dynamic || step == Step::kQuantize) cuda::prepare(kName, per_tensor(a, device, step), device);
}

std::vector<per_tensor_quant_fp8::Key> PerTensorQuantFp8::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (DType out : {DType::kE4M3, DType::kE5M2})
      for (Step step : {Step::kLargest, Step::kScale, Step::kQuantize})
        keys.push_back({.x = t, .out = out, .step = step, .vec = step == Step::kScale ? 1 : 16 / size_of(t)});
  return keys;
}

runtime::Refusal PerTokenGroupQuantFp8::refuses(const Args& a) {
  const Rows x = groups_of(a.input, a.group_size), out = groups_of(a.out, a.group_size);
  if (x.num_rows() > 0x7fffffff) return "more than 2147483647 groups";
  return refuses_rows(x, vec_for(x, out));
}

Work<per_token_group_quant_fp8::Key, per_token_group_quant_fp8::Params> PerTokenGroupQuantFp8::work(
    const Args& a, const Device& device) {
  const Rows x = groups_of(a.input, a.group_size), out = groups_of(a.out, a.group_size);
  const RowShape s = choose_row_shape(x.n, vec_for(x, out), x.num_rows(), device.num_sms, kShortRowLoads);
  const int64_t* strides = a.scales.strides;
  const RowTensor scales{a.scales.data, strides[a.group_major_scales ? 1 : 0], strides[a.group_major_scales ? 0 : 1]};
  return {
      .key = {.x = a.input.dtype, .out = a.out.dtype, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes},
      .params = {.x = x, .out = out, .scales = scales, .rows = x.count(), .eps = a.eps, .pow2_scales = a.pow2_scales},
      .shape = launch_shape(x.num_rows(), s),
      .persistent = false};
}

std::vector<per_token_group_quant_fp8::Key> PerTokenGroupQuantFp8::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (int64_t n : {32, 64, 128, 4096, 8192})
      for (int64_t rows : {1, 1 << 20}) {
        const RowShape s = choose_row_shape(n, 16 / size_of(t), rows, 132, kShortRowLoads);
        keys.push_back({.x = t, .out = DType::kE4M3, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes});
      }
  return keys;
}

}  // namespace fulmen::cuda
