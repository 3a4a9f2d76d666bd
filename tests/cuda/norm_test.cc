// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/fused_add_rmsnorm.h>
#include <fulmen/reference/layernorm.h>
#include <fulmen/reference/rmsnorm.h>

#include "tests/support/gpu_case.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

struct NormCase {
  DType dtype, weight_dtype, out_dtype;
  std::vector<int64_t> shape;
  int64_t row_padding = 0;
};

std::vector<NormCase> norm_cases() {
  std::vector<NormCase> all;
  constexpr DType kF16 = DType::kF16, kBF16 = DType::kBF16, kF32 = DType::kF32;
  for (DType t : float_types())
    for (int64_t n : {1, 3, 8, 64, 111, 128, 256, 1000, 4096}) all.push_back({t, t, t, {5, n}, n % 3});
  for (int64_t n : {64, 512, 1024, 2048, 8192, 16384}) all.push_back({kBF16, kBF16, kBF16, {300, n}});
  all.push_back({kBF16, kF32, kBF16, {3, 4, 128}, 16});  // heads of a token, f32 weights
  all.push_back({kBF16, kBF16, kBF16, {700, 24, 128}});
  all.push_back({kF16, kF16, kF16, {1, 8192}});
  all.push_back({kF32, kF32, kF32, {2, 20000}});
  all.push_back({kF16, kF16, kF16, {2, 65536}});
  all.push_back({kF32, kF32, kF32, {20000, 16}});
  for (DType out : {DType::kE4M3, DType::kE5M2})
    for (DType t : float_types()) all.push_back({t, t, out, {9, 1024}}), all.push_back({t, t, out, {9, 333}, 3});
  return all;
}

std::string text_of(const NormCase& c) {
  std::string text = std::string(name_of(c.dtype)) + " to " + name_of(c.out_dtype);
  for (int64_t n : c.shape) text += " " + std::to_string(n);
  return text;
}

int64_t elements_of(const NormCase& c) {
  int64_t n = 1;
  for (int64_t d : c.shape) n *= d;
  return n;
}

class CudaNorm : public OnGpu {};

TEST_F(CudaNorm, RmsNormStaysWithinTheBound) {
  for (const NormCase& c : norm_cases()) {
    if (too_long_for_emulator(elements_of(c))) continue;
    Tensor x(c.dtype, c.shape, c.row_padding), w(c.weight_dtype, {c.shape.back()}),
        out(c.out_dtype, c.shape, c.row_padding);
    Tensor scale(DType::kF32, {1});
    x.fill_normal(1, 3), w.fill_normal(2), scale.set(0, 0.37);
    RmsNormArgs host{.input = x, .weight = w, .out = out, .eps = 1e-5f, .weight_bias = float(c.shape.back() % 2)};
    if (size_of(c.out_dtype) == 1) host.out_scale = scale;
    const reference::Values expected = reference::rmsnorm(host);
    GpuTensor dx(x), dw(w), dout(out), dscale(scale);
    RmsNormArgs args = host;
    args.input = dx, args.weight = dw, args.out = dout;
    if (host.out_scale.defined()) args.out_scale = dscale;
    rmsnorm(args);
    EXPECT_TRUE(within(dout.fetch(), expected)) << text_of(c);
    if (c.out_dtype != c.dtype) continue;
    args.out = args.input;
    rmsnorm(args);
    EXPECT_TRUE(within(dx.fetch(), expected)) << text_of(c) << " in place";
  }
}

TEST_F(CudaNorm, FusedAddRmsNormStaysWithinTheBound) {
  for (const NormCase& c : norm_cases()) {
    if (too_long_for_emulator(elements_of(c))) continue;
    Tensor x(c.dtype, c.shape, c.row_padding), residual(c.dtype, c.shape), w(c.weight_dtype, {c.shape.back()});
    Tensor out(c.out_dtype, c.shape, c.row_padding), scale(DType::kF32, {1});
    x.fill_normal(1, 3), residual.fill_normal(3, 2), w.fill_normal(2), scale.set(0, 0.37);
    FusedAddRmsNormArgs host{.input = x, .residual = residual, .weight = w, .out = out, .eps = 1e-5f};
    if (size_of(c.out_dtype) == 1) host.out_scale = scale;
    const reference::FusedAddRmsNorm expected = reference::fused_add_rmsnorm(host);
    GpuTensor dx(x), dresidual(residual), dw(w), dout(out), dscale(scale);
    FusedAddRmsNormArgs args = host;
    args.input = dx, args.residual = dresidual, args.weight = dw, args.out = dout;
    if (host.out_scale.defined()) args.out_scale = dscale;
    if (c.out_dtype == c.dtype && c.shape[0] % 2 == 1) args.out = args.input;  // FlashInfer's form
    fused_add_rmsnorm(args);
    EXPECT_TRUE(within(args.out.data == args.input.data ? dx.fetch() : dout.fetch(), expected.out)) << text_of(c);
    EXPECT_TRUE(within(dresidual.fetch(), expected.residual)) << text_of(c);
  }
}

TEST_F(CudaNorm, LayerNormStaysWithinTheBound) {
  for (const NormCase& c : norm_cases()) {
    if (too_long_for_emulator(elements_of(c))) continue;
    Tensor x(c.dtype, c.shape, c.row_padding), gamma(c.weight_dtype, {c.shape.back()}),
        beta(c.weight_dtype, {c.shape.back()});
    Tensor out(c.out_dtype, c.shape, c.row_padding), scale(DType::kF32, {1});
    x.fill([&](int64_t i) { return 2 + double(i * 7919 % 1000) / 250; }), gamma.fill_normal(2), beta.fill_normal(3);
    scale.set(0, 0.37);
    LayerNormArgs host{.input = x, .gamma = gamma, .beta = beta, .out = out, .eps = 1e-5f};
    if (size_of(c.out_dtype) == 1) host.out_scale = scale;
    const reference::Values expected = reference::layernorm(host);
    GpuTensor dx(x), dgamma(gamma), dbeta(beta), dout(out), dscale(scale);
    LayerNormArgs args = host;
    args.input = dx, args.gamma = dgamma, args.beta = dbeta, args.out = dout;
    if (host.out_scale.defined()) args.out_scale = dscale;
    layernorm(args);
    EXPECT_TRUE(within(dout.fetch(), expected)) << text_of(c);
  }
}

TEST_F(CudaNorm, MemoryBesideTheRowsIsNeitherReadNorWritten) {
  Tensor x(DType::kBF16, {6, 50}, 14), w(DType::kBF16, {50}), out(DType::kBF16, {6, 50}, 14);
  x.fill_normal(1), w.fill_normal(2);
  GpuTensor dx(x), dw(w), dout(out);
  rmsnorm({.input = dx, .weight = dw, .out = dout});
  const Tensor first = dout.fetch();
  for (int64_t row = 0; row < 6; ++row)
    for (int64_t i = 50; i < 64; ++i) x.data<uint16_t>()[row * 64 + i] = 0x7f00;  // 1.7e38 instead of NaN
  out.poison(0xff);
  GpuTensor other(x), again(out);
  rmsnorm({.input = other, .weight = dw, .out = again});
  EXPECT_TRUE(again.fetch().same_bytes(first));
}

TEST_F(CudaNorm, ZeroRowsAreLegalAndWrongCallsAreNot) {
  Tensor x(DType::kF32, {0, 64}), w(DType::kF32, {64});
  w.fill_normal(1);
  GpuTensor dx(x), dw(w);
  EXPECT_NO_THROW(rmsnorm({.input = dx, .weight = dw, .out = dx}));
  EXPECT_THROW(rmsnorm({.input = dx, .weight = w, .out = dx}), Error);  // weight on the host
}

}  // namespace
}  // namespace fulmen::testing
