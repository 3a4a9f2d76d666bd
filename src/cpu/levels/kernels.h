// SPDX-License-Identifier: Apache-2.0
// Every file of this folder is compiled once per instruction set (FULMEN_CPU_LEVEL_ID), each into its own namespace.
// One line per kernel here and one in table.cc.
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/core/context.h>
#include <fulmen/cpu/level.h>
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/ops/elementwise.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/ops/get_seq_lens.h>
#include <fulmen/ops/layernorm.h>
#include <fulmen/ops/merge_state.h>
#include <fulmen/ops/packbits.h>
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/rope.h>
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/ops/rope_quantize_fp8.h>
#include <fulmen/ops/segment_packbits.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/top_k.h>
#include <fulmen/ops/top_k_transform.h>
#include <fulmen/runtime/thread_pool.h>

namespace fulmen::cpu {

inline const Executor& executor_of(const Context& context) {
  return context.executor != nullptr ? *context.executor : runtime::default_executor();
}

namespace FULMEN_CPU_NS {
void launch(const attention::AttentionCall& call, const Context& context);
void launch(const ActAndMulArgs& args, const Context& context);
void launch(const AppendPagedKvCacheArgs& args, const Context& context);
void launch(const AppendPagedMlaKvCacheArgs& args, const Context& context);
void launch(const ChainSpeculativeSamplingArgs& args, const Context& context);
void launch(const ElementwiseArgs& args, const Context& context);
void launch(const FusedAddRmsNormArgs& args, const Context& context);
void launch(const GetBatchIndicesPositionsArgs& args, const Context& context);
void launch(const GetSeqLensArgs& args, const Context& context);
void launch(const LayerNormArgs& args, const Context& context);
void launch(const MergeStateArgs& args, const Context& context);
void launch(const MergeStatesArgs& args, const Context& context);
void launch(const PackBitsArgs& args, const Context& context);
void launch(const PerTensorQuantFp8Args& args, const Context& context);
void launch(const PerTokenGroupQuantFp8Args& args, const Context& context);
void launch(const RmsNormArgs& args, const Context& context);
void launch(const RopeArgs& args, const Context& context);
void launch(const RopeAppendPagedKvCacheArgs& args, const Context& context);
void launch(const RopeQuantizeFp8Args& args, const Context& context);
void launch(const SampleArgs& args, const Context& context);
void launch(const SegmentPackBitsArgs& args, const Context& context);
void launch(const SoftmaxArgs& args, const Context& context);
void launch(const TokenFilterArgs& args, const Context& context);
void launch(const TopKArgs& args, const Context& context);
void launch(const TopKTransformArgs& args, const Context& context);
}  // namespace FULMEN_CPU_NS

}  // namespace fulmen::cpu
