// SPDX-License-Identifier: Apache-2.0
// The rows of this level: which ops have a kernel compiled for it.
#include "src/cpu/levels/table.h"
#include "src/cpu/levels/kernels.h"

namespace fulmen::cpu::FULMEN_CPU_NS {

void prepare(const ElementwiseArgs& args);  // elementwise.cc: compiles the text

namespace {

constexpr CpuLevel kLevel = CpuLevel(FULMEN_CPU_LEVEL_ID);

runtime::Refusal refuses_level(const void*, const runtime::DeviceInfo& device) {
  if (device.arch >= int32_t(kLevel)) return {};
  return std::string("needs ") + runtime::name_of(kLevel) + ", this CPU (or FULMEN_CPU_LEVEL) allows " +
         runtime::name_of(CpuLevel(device.arch));
}

template <class Args>
runtime::KernelRow row(std::string_view op) {
  constexpr std::string_view kKernels[] = {"cpu/scalar", "cpu/avx2", "cpu/avx512", "cpu/avx512_bf16"};
  runtime::KernelRow made{
      op, kKernels[FULMEN_CPU_LEVEL_ID], &refuses_level,
      [](const void* args, const Context& context) { launch(*static_cast<const Args*>(args), context); }};
  if constexpr (requires(const Args& args) { prepare(args); })
    made.prepare = [](const void* args, const Context&) { prepare(*static_cast<const Args*>(args)); };
  return made;
}

}  // namespace

void append_rows(std::vector<runtime::KernelRow>& rows) {
  rows.insert(rows.end(), {
                              row<ActAndMulArgs>("act_and_mul"),
                              row<AppendPagedKvCacheArgs>("append_paged_kv_cache"),
                              row<AppendPagedMlaKvCacheArgs>("append_paged_mla_kv_cache"),
                              row<attention::AttentionCall>("batch_attention"),
                              row<ChainSpeculativeSamplingArgs>("chain_speculative_sampling"),
                              row<ElementwiseArgs>("elementwise"),
                              row<FusedAddRmsNormArgs>("fused_add_rmsnorm"),
                              row<GetBatchIndicesPositionsArgs>("get_batch_indices_positions"),
                              row<GetSeqLensArgs>("get_seq_lens"),
                              row<LayerNormArgs>("layernorm"),
                              row<MergeStateArgs>("merge_state"),
                              row<MergeStatesArgs>("merge_states"),
                              row<PackBitsArgs>("packbits"),
                              row<PerTensorQuantFp8Args>("per_tensor_quant_fp8"),
                              row<PerTokenGroupQuantFp8Args>("per_token_group_quant_fp8"),
                              row<RmsNormArgs>("rmsnorm"),
                              row<RopeArgs>("rope"),
                              row<RopeAppendPagedKvCacheArgs>("rope_append_paged_kv_cache"),
                              row<RopeQuantizeFp8Args>("rope_quantize_fp8"),
                              row<SampleArgs>("sample"),
                              row<SegmentPackBitsArgs>("segment_packbits"),
                              row<SoftmaxArgs>("softmax"),
                              row<TokenFilterArgs>("token_filter"),
                              row<TopKArgs>("top_k"),
                              row<TopKTransformArgs>("top_k_transform"),
                          });
}

}  // namespace fulmen::cpu::FULMEN_CPU_NS
