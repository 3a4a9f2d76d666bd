// SPDX-License-Identifier: Apache-2.0
// Every op's schema: the list behind list_schemas, `fulmen show-config` and the support matrix.
#pragma once
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/ops/attention.h>
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
#include <fulmen/ops/sample.h>
#include <fulmen/ops/segment_packbits.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/token_filter.h>
#include <fulmen/ops/top_k.h>
#include <fulmen/ops/top_k_transform.h>

#include <array>
#include <utility>

namespace fulmen::ffi {

inline constexpr std::array kSchemas{
    &kActAndMulSchema,
    &kAppendPagedKvCacheSchema,
    &kAppendPagedMlaKvCacheSchema,
    &kChainSpeculativeSamplingSchema,
    &kElementwiseSchema,
    &kFusedAddRmsNormSchema,
    &kGetBatchIndicesPositionsSchema,
    &kGetSeqLensSchema,
    &kLayerNormSchema,
    &kMergeStateSchema,
    &kMergeStatesSchema,
    &kPackBitsSchema,
    &kPerTensorQuantFp8Schema,
    &kPerTokenGroupQuantFp8Schema,
    &kRmsNormSchema,
    &kRopeSchema,
    &kRopeAppendPagedKvCacheSchema,
    &kRopeQuantizeFp8Schema,
    &kSampleSchema,
    &kSegmentPackBitsSchema,
    &kSoftmaxSchema,
    &kTokenFilterSchema,
    &kTopKSchema,
    &kTopKTransformSchema,
};

// Attention's entry points differ in tensors; a schema each, in NHD.
inline constexpr std::pair<AttentionEntry, bool> kAttentionSchemas[] = {
    {AttentionEntry::kBatchAttention, true},    {AttentionEntry::kBatchAttention, false},
    {AttentionEntry::kSinglePrefill, false},    {AttentionEntry::kSingleDecode, false},
    {AttentionEntry::kBatchPrefillPaged, true}, {AttentionEntry::kBatchPrefillRagged, false},
    {AttentionEntry::kBatchDecode, true},
};

}  // namespace fulmen::ffi
