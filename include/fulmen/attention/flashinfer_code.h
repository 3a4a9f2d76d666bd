// SPDX-License-Identifier: Apache-2.0
// A variant that was written for FlashInfer (attention/flashinfer_variant.h) as a VariantCode: its text with what it
// needs around it, and the bytes of its fields.
#pragma once
#include <fulmen/attention/call.h>

#include <span>

namespace fulmen::attention {

struct FlashInferVariant {
  struct Extra {
    std::string name, type;  // of an element: "float", "uint8_t", "double", "int64_t", ...
  };
  std::string name, text;  // of the struct
  std::vector<Extra> tensors, scalars;
};

struct FlashInferLaunch {
  int32_t num_qo_heads = 1, num_kv_heads = 1, window_left = -1;
  bool causal = false;
};

// Name and text. Throws on a name or type that is no C++ name.
VariantCode code_of(const FlashInferVariant& variant);
// The bytes that code_of(variant).fields must point to. tensors: addresses on the device, null for one that is not
// given; scalars: one number for each, rounded to its type.
std::vector<char> fields_of(const FlashInferVariant& variant, const FlashInferLaunch& launch,
                            std::span<const void* const> tensors, std::span<const double> scalars);

}  // namespace fulmen::attention
