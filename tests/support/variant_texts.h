// SPDX-License-Identifier: Apache-2.0
// Variants in the form that FlashInfer's users write them, for every backend that compiles texts.
#pragma once

namespace fulmen::testing {

constexpr const char* kSinkText = R"(
struct SinkPerHead : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  uint32_t window_left, qo_len, kv_len;
  float sm_scale_log2;

  template <typename Params>
  __device__ __host__ SinkPerHead(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = params.window_left >= 0 ? uint32_t(params.window_left) : kv_len;
    sm_scale_log2 = params.sm_scale * math::log2e;
  }
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx,
                       { return (kv_idx + qo_len + window_left >= kv_len + qo_idx); })
  REGISTER_M_D_UPDATE(params, kv_tile_idx, qo_head_idx, m, d, scale, {
    float sink = kv_tile_idx == 0 ? params.sink[qo_head_idx] * math::log2e : -math::inf;
    float top = m > sink ? m : sink;
    scale = math::ptx_exp2(m - top);
    d = d * scale + math::ptx_exp2(sink - top);
    m = top;
  })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, {
    float inverse = m != -math::inf ? math::ptx_rcp(d) : 0.f;
    return output * scale * inverse;
  })
};
)";

constexpr const char* kSigmoidText = R"(
struct SigmoidAttention : AttentionVariantBase {
  static constexpr bool use_softmax = false;
  uint32_t window_left, qo_len, kv_len;
  float scale_log2, bias_log2;

  template <typename Params>
  __device__ __host__ SigmoidAttention(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = kv_len;
    scale_log2 = params.logits_scale * math::log2e;
    bias_log2 = params.sigmoid_bias * math::log2e;
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    return math::ptx_rcp(1.f + math::ptx_exp2(-float(logits * scale_log2 + bias_log2)));
  })
  REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, { return output; })
};
)";

constexpr const char* kMaskText = R"(
DEFINE_HAS_MEMBER(maybe_temperature)
struct MaskedAttention : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  uint8_t* custom_mask_ptr;
  uint32_t window_left, qo_len, kv_len;
  float sm_scale_log2;

  template <typename Params>
  __device__ __host__ MaskedAttention(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = kv_len;
    custom_mask_ptr = params.custom_mask + params.mask_indptr[batch_idx];
    static_assert(!has_maybe_temperature_v<Params>);
    sm_scale_log2 = params.sm_scale * math::log2e;
  }
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    const uint32_t offset = qo_idx * kv_len + kv_idx;
    return ((custom_mask_ptr[offset / 8] >> (offset % 8)) & 1);
  });
};
)";

constexpr const char* kSoftCapText = R"(
struct SoftCapAlibi : AttentionVariantBase {
  static constexpr bool use_softmax = true;
  uint32_t window_left, qo_len, kv_len;
  float sm_scale_log2, pre, post;

  template <typename Params>
  __device__ __host__ SoftCapAlibi(const Params& params, uint32_t batch_idx, uint8_t* smem_ptr) {
    qo_len = params.get_qo_len(batch_idx);
    kv_len = params.get_kv_len(batch_idx);
    window_left = kv_len;
    pre = params.sm_scale * math::ptx_rcp(params.cap);
    post = params.cap;
    sm_scale_log2 = math::log2e;
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    float bias = params.slopes[qo_head_idx] * float(int(kv_idx) - int(qo_idx));
    return post * math::tanh(float(logits) * pre) + bias;
  })
};
)";

// In the form of FlashInfer's backend fa3, with a tensor of half.
constexpr const char* kFa3SoftCapText = R"(
struct SoftCapped : AttentionVariantBase {
  float before, sm_scale_log2;

  template <typename MainloopParams, typename BlockCoord>
  __device__ __host__ SoftCapped(const MainloopParams& params, const BlockCoord& block_coord) {
    auto [q_tile_idx, qo_head_idx, kv_head_idx, qo_indptr, kv_indptr, qo_len, kv_len, batch_idx] = block_coord;
    before = params.additional_params.sm_scale * math::ptx_rcp(params.additional_params.cap);
    sm_scale_log2 = params.additional_params.cap * math::log2e;
  }
  template <int NUM_ROWS_PER_THREAD>
  __device__ auto GetAttentionUpdater() {
    return OnlineSoftmax<NUM_ROWS_PER_THREAD, /*WITH_SCALE=*/true>(sm_scale_log2);
  }
  REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    return math::tanh(float(logits) * before * float(params.additional_params.gain[qo_head_idx]));
  })
  REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, {
    return kv_idx + params.get_qo_len(batch_idx) <= params.get_kv_len(batch_idx) + qo_idx;
  })
};
)";

}  // namespace fulmen::testing
