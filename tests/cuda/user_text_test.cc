// SPDX-License-Identifier: Apache-2.0
// elementwise: kernels from texts, on the GPU. Sums and products of small integers are exact.
#include <fulmen/ops/elementwise.h>
#include <fulmen/reference/bounded.h>

#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaElementwiseText : public OnGpu {};

TEST_F(CudaElementwiseText, ComputesTheText) {
  for (DType t : float_types())
    for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{{0, 8}, {3, 7}, {5, 64}, {4, 2, 40}}) {
      Tensor a(t, shape, shape[0] % 2), b(DType::kF32, shape), out(DType::kF32, shape, 3);
      a.fill_integers(1, -9, 9), b.fill_integers(2, -9, 9);
      GpuTensor da(a), db(b), dout(out);
      elementwise({.text = "const float t = a * b;\nreturn t + s[1] * a;",
                   .name = "mul_add",
                   .a = da,
                   .b = db,
                   .out = dout,
                   .s = {0, 3}});
      dout.fetch();
      for (int64_t i = 0; i < a.view().num_elements(); ++i) {
        const double x = reference::element(a, i), y = reference::element(b, i);
        ASSERT_EQ(reference::element(out, i), x * y + 3 * x) << name_of(t) << " " << i;
      }
      EXPECT_TRUE(out.guards_intact());
    }
}

TEST_F(CudaElementwiseText, SameNameOtherTextAndBroadcastRows) {
  Tensor a(DType::kF32, {6, 16}), row(DType::kF32, {1, 16}), out(DType::kBF16, {6, 16});
  a.fill_integers(1, -9, 9), row.fill_integers(2, -9, 9);
  GpuTensor da(a), drow(row), dout(out);
  TensorView rows = drow;
  rows.shape[0] = 6, rows.strides[0] = 0;
  for (double sign : {1, -1}) {
    elementwise({.text = sign > 0 ? "return a + b;" : "return a - b;", .name = "f", .a = da, .b = rows, .out = dout});
    dout.fetch();
    for (int64_t i = 0; i < 96; ++i)
      ASSERT_EQ(reference::element(out, i), reference::element(a, i) + sign * reference::element(row, i % 16));
  }
}

}  // namespace
}  // namespace fulmen::testing
