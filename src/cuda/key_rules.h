// SPDX-License-Identifier: Apache-2.0
// What a kernel's key may say, once for each kind of key: lists of keys come from people and other versions, and a
// compiler's errors about a number that no kernel was written for help nobody.
#pragma once
#include <fulmen/core/schema.h>
#include <fulmen/cuda/act_and_mul.h>
#include <fulmen/cuda/append_paged_kv_cache.h>
#include <fulmen/cuda/attention_prepare.h>
#include <fulmen/cuda/batch_attention.h>
#include <fulmen/cuda/choose_cascade.h>
#include <fulmen/cuda/get_batch_indices_positions.h>
#include <fulmen/cuda/get_seq_lens.h>
#include <fulmen/cuda/merge_states.h>
#include <fulmen/cuda/norm_key.h>
#include <fulmen/cuda/packbits.h>
#include <fulmen/cuda/per_tensor_quant_fp8.h>
#include <fulmen/cuda/per_token_group_quant_fp8.h>
#include <fulmen/cuda/rope.h>
#include <fulmen/cuda/segment_packbits.h>
#include <fulmen/cuda/token_row.h>

#include <initializer_list>
#include <string_view>

namespace fulmen::cuda {

// Each line of check_key says what a field may be. Throws Error{kInvalidArgument} that names the field.
struct KeyRules {
  std::string_view op;

  void one_of(std::string_view field, DType got, DTypes allowed) const;
  void one_of(std::string_view field, int32_t got, std::initializer_list<int32_t> allowed) const;
  void multiple(std::string_view field, int32_t got, int32_t of, int32_t most) const;
  void vec(std::string_view field, int32_t got, DType of) const;  // a power of two of at most 16 bytes
  void only(bool ok, std::string_view field, std::string_view got, std::string_view expected) const;
};

void check_key(const NormKey& k, const KeyRules& rules);
void check_key(const TokenKey& k, const KeyRules& rules);
void check_key(const act_and_mul::Key& k, const KeyRules& rules);
void check_key(const append_paged_kv_cache::Key& k, const KeyRules& rules);
void check_key(const attention_prepare::Key& k, const KeyRules& rules);
void check_key(const batch_attention::Key& k, const KeyRules& rules);
void check_key(const choose_cascade::Key& k, const KeyRules& rules);
void check_key(const get_batch_indices_positions::Key& k, const KeyRules& rules);
void check_key(const get_seq_lens::Key& k, const KeyRules& rules);
void check_key(const merge_states::Key& k, const KeyRules& rules);
void check_key(const packbits::Key& k, const KeyRules& rules);
void check_key(const per_tensor_quant_fp8::Key& k, const KeyRules& rules);
void check_key(const per_token_group_quant_fp8::Key& k, const KeyRules& rules);
void check_key(const rope::Key& k, const KeyRules& rules);
void check_key(const segment_packbits::Key& k, const KeyRules& rules);

}  // namespace fulmen::cuda
