// SPDX-License-Identifier: Apache-2.0
// Texts in the form that FlashInfer's users write, compiled as they stand: a sink, a sigmoid, a mask.
#include <fulmen/attention/flashinfer_code.h>

#include "tests/support/attention_on_gpu.h"
#include "tests/support/gpu_case.h"
#include "tests/support/variant_texts.h"

namespace fulmen::testing {
namespace {

using attention::FlashInferVariant;

class CudaFlashInferVariant : public OnGpu {};

AttentionCase half_case() {
  AttentionCase c;
  c.q_dtype = c.kv_dtype = c.out_dtype = DType::kF16;
  return c;
}

void run(const FlashInferVariant& v, const AttentionArgs& args, const AttentionCase& c,
         const std::vector<const void*>& tensors, const std::vector<double>& scalars, bool planned = false) {
  attention::VariantCode code = attention::code_of(v);
  const std::vector<char> fields = attention::fields_of(v,
                                                        {.num_qo_heads = int32_t(c.num_kv_heads * c.group),
                                                         .num_kv_heads = int32_t(c.num_kv_heads),
                                                         .window_left = args.options.window_left,
                                                         .causal = args.options.causal},
                                                        tensors, scalars);
  code.fields = fields.data(), code.num_bytes = int64_t(fields.size());
  if (!planned) return attention::run_variant(args, code);
  attention::BatchAttention batch;
  batch.plan_on_device(args);
  batch.run(args, &code);
}

TEST_F(CudaFlashInferVariant, Sink) {
  for (bool planned : {false, true}) {
    AttentionCase c = half_case();
    c.lens = {{3, 200}, {1, 0}, {5, 5}}, c.sinks = true;
    c.options.causal = true, c.options.window_left = 60, c.options.sm_scale = 0.1f;
    AttentionProblem p(c);
    OnDevice d(p);
    const GpuTensor sinks(p.sinks);
    AttentionArgs args = d.args;
    args.sinks = {}, args.options.window_left = -1;  // the plan need not know
    args.options.window_left = 60;
    const FlashInferVariant v{"SinkPerHead", kSinkText, {{"sink", "float"}}, {{"sm_scale", "double"}}};
    run(v, args, c, {TensorView(sinks).data}, {double(c.options.sm_scale)}, planned);
    d.fetch();
    EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
  }
}

TEST_F(CudaFlashInferVariant, Sigmoid) {
  AttentionCase c = half_case();
  c.d_qk = c.d_vo = 16, c.num_kv_heads = c.group = 1, c.out_dtype = DType::kF32, c.lens = {{2, 130}};
  c.table = Table::kRagged;
  AttentionProblem p(c);
  OnDevice d(p);
  const FlashInferVariant v{
      "SigmoidAttention", kSigmoidText, {}, {{"logits_scale", "double"}, {"sigmoid_bias", "double"}}};
  run(v, d.args, c, {}, {0.25, -2});
  d.fetch();
  for (int64_t i = 0; i < 2; ++i)
    for (int64_t e = 0; e < 16; ++e) {
      double want = 0, magnitude = 0;
      for (int64_t j = 0; j < 130; ++j) {
        double x = 0;
        for (int64_t k = 0; k < 16; ++k) x += reference::element(p.q, i * 16 + k) * reference::element(p.k, j * 16 + k);
        const double term = reference::element(p.v, j * 16 + e) / (1 + std::exp(-(0.25 * x - 2)));
        want += term, magnitude += std::abs(term);
      }
      EXPECT_NEAR(p.out.data<float>()[i * 16 + e], want, magnitude * 0x1p-8);  // weights are rounded to f16
    }
}

TEST_F(CudaFlashInferVariant, Mask) {
  AttentionCase c = half_case();
  c.lens = {{3, 70}, {9, 40}}, c.mask = true, c.options.sm_scale = 0.2f;
  AttentionProblem p(c);
  OnDevice d(p);
  AttentionArgs args = d.args;
  const void* const mask = args.custom_mask.data;
  const void* const offsets = args.mask_indptr.data;
  args.custom_mask = args.mask_indptr = {};
  const FlashInferVariant v{
      "MaskedAttention", kMaskText, {{"custom_mask", "uint8_t"}, {"mask_indptr", "int32_t"}}, {{"sm_scale", "double"}}};
  run(v, args, c, {mask, offsets}, {double(c.options.sm_scale)});
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

TEST_F(CudaFlashInferVariant, TextsForFa3AndHalf) {
  AttentionCase c = half_case();
  c.lens = {{3, 200}, {1, 0}, {20, 30}};
  c.options.causal = true, c.options.logits_soft_cap = 3, c.options.sm_scale = 0.25f;
  AttentionProblem p(c);
  OnDevice d(p);
  Tensor gain(DType::kF16, {4});
  gain.fill([](int64_t) { return 0.5; });
  const GpuTensor on_gpu(gain);
  AttentionArgs args = d.args;
  args.options.logits_soft_cap = 0, args.options.causal = false;
  const FlashInferVariant v{
      "SoftCapped", kFa3SoftCapText, {{"gain", "half"}}, {{"sm_scale", "double"}, {"cap", "double"}}};
  run(v, args, c, {TensorView(on_gpu).data}, {0.5, 3});
  d.fetch();
  EXPECT_TRUE(within(p, reference::attention(p.args, reference::Products::kHalf)));
}

TEST_F(CudaFlashInferVariant, RefusesWhatIsNoName) {
  const auto refused = [](const FlashInferVariant& v) {
    try {
      attention::code_of(v);
      return false;
    } catch (const Error& e) { return e.code == Code::kInvalidArgument; }
  };
  EXPECT_TRUE(refused({"A B", "", {}, {}}));
  EXPECT_TRUE(refused({"A", "", {{"x;", "float"}}, {}}));
  EXPECT_TRUE(refused({"A", "", {}, {{"x", "std::string"}}}));
  EXPECT_FALSE(refused({"A", "", {{"x", "float"}}, {{"y", "int64_t"}}}));
}

}  // namespace
}  // namespace fulmen::testing
