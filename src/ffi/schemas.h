// SPDX-License-Identifier: Apache-2.0
// Every op's schema: the list behind list_schemas, `fulmen show-config` and the support matrix.
#pragma once
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/ops/get_seq_lens.h>
#include <fulmen/ops/layernorm.h>
#include <fulmen/ops/packbits.h>
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/rope.h>
#include <fulmen/ops/segment_packbits.h>

#include <array>

namespace fulmen::ffi {

inline constexpr std::array kSchemas{
    &kActAndMulSchema,
    &kAppendPagedKvCacheSchema,
    &kAppendPagedMlaKvCacheSchema,
    &kFusedAddRmsNormSchema,
    &kGetBatchIndicesPositionsSchema,
    &kGetSeqLensSchema,
    &kLayerNormSchema,
    &kPackBitsSchema,
    &kPerTensorQuantFp8Schema,
    &kPerTokenGroupQuantFp8Schema,
    &kRmsNormSchema,
    &kRopeSchema,
    &kSegmentPackBitsSchema,
};

}  // namespace fulmen::ffi
