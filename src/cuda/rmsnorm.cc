// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/rmsnorm.h"

#include "src/cuda/rows.h"

namespace fulmen::cuda {
namespace {

int32_t vec_for(const RmsNormArgs& a, const Rows& x, const Rows& out) {
  const int32_t vec = vec_of(x.alignment() | out.alignment(), x.element_bytes);
  // The weights' own alignment, where they are of another width or lie askew.
  const int32_t weight_vec = vec_of(uint64_t(a.weight.data), size_of(a.weight.dtype));
  const bool wide = vec * size_of(a.weight.dtype) > 16;  // then in pieces of 16 bytes
  return wide ? (uint64_t(a.weight.data) % 16 == 0 ? vec : weight_vec) : std::min(vec, weight_vec);
}

}  // namespace

runtime::Refusal RmsNorm::refuses(const Args& a) {
  const Rows x = rows_of(a.input), out = rows_of(a.out);
  return refuses_rows(x.even() ? out : x, vec_for(a, x, out));
}

Work<rmsnorm::Key, rmsnorm::Params> RmsNorm::work(const Args& a, const Device& device) {
  Rows x = rows_of(a.input), out = rows_of(a.out);
  flatten_together(x, out);
  const RowShape shape = choose_row_shape(x.n, vec_for(a, x, out), x.num_rows(), device.num_sms);
  return {
      .key = {.x = a.input.dtype, .weight = a.weight.dtype, .vec = shape.vec, .vecs = shape.vecs, .lanes = shape.lanes},
      .params = {.x = x.data,
                 .weight = a.weight.data,
                 .out = out.data,
                 .num_rows = x.num_rows(),
                 .num_heads = int32_t(x.num_heads),
                 .n = int32_t(x.n),
                 .x_token = x.token_stride,
                 .x_head = x.head_stride,
                 .out_token = out.token_stride,
                 .out_head = out.head_stride,
                 .eps = a.eps,
                 .bias = a.weight_bias},
      .shape = {.grid = grid_of(x.num_rows(), shape), .num_threads = uint32_t(shape.num_threads())}};
}

std::vector<rmsnorm::Key> RmsNorm::common_keys() {
  std::vector<Key> keys;
  for (DType t : {DType::kBF16, DType::kF16, DType::kF32})
    for (int64_t n : {64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384})
      for (int64_t num_rows : {1, 1 << 20}) {
        const RowShape s = choose_row_shape(n, 16 / size_of(t), num_rows, 132);
        for (DType w : {t, DType::kF32})
          keys.push_back({.x = t, .weight = w, .vec = s.vec, .vecs = s.vecs, .lanes = s.lanes});
      }
  return keys;
}

}  // namespace fulmen::cuda
