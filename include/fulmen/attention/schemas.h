// SPDX-License-Identifier: Apache-2.0
// The schemas of the attention entry points: one list of tensors, whose shapes differ by layout, paging and row axis.
#pragma once
#include <fulmen/ops/attention.h>

namespace fulmen::attention::schemas {

inline constexpr DTypes kAnyFloat = kFloats | kFp8;
inline constexpr Presence kOptional = Presence::kOptional;
inline constexpr Access kRead = Access::kRead, kWrite = Access::kWrite;

struct Shapes {
  std::string_view k, v;
};
inline constexpr Shapes kRaggedNhd{"total_kv num_kv_heads head_dim_qk", "total_kv num_kv_heads head_dim_vo"};
inline constexpr Shapes kRaggedHnd{"num_kv_heads total_kv head_dim_qk", "num_kv_heads total_kv head_dim_vo"};
inline constexpr Shapes kPagedNhd{"num_pages page_size num_kv_heads head_dim_qk",
                                  "num_pages page_size num_kv_heads head_dim_vo"};
inline constexpr Shapes kPagedHnd{"num_pages num_kv_heads page_size head_dim_qk",
                                  "num_pages num_kv_heads page_size head_dim_vo"};

consteval OpSchema schema(std::string_view op, Shapes kv, bool row_axis = true) {
  const auto rows = [row_axis](std::string_view with, std::string_view without) { return row_axis ? with : without; };
  return OpSchema(
      op, {
              {"q", rows("total_q num_qo_heads head_dim_qk", "num_qo_heads head_dim_qk"), kAnyFloat, kRead,
               Presence::kRequired, "queries"},
              {"k", kv.k, kAnyFloat, kRead, Presence::kRequired, "keys"},
              {"v", kv.v, kAnyFloat, kRead, Presence::kRequired, "values, k's dtype"},
              {"qo_indptr", "batch_size+1", kIds, kRead, kOptional, "offsets into total_q"},
              {"kv_indptr", "batch_size+1", kIds, kRead, kOptional, "offsets into total_kv or kv_indices"},
              {"kv_indices", "num_kv_indices", kIds, kRead, kOptional, "page ids"},
              {"last_page_len", "batch_size", kIds, kRead, kOptional, "1 to page_size"},
              {"block_tables", "batch_size max_num_pages", kIds, kRead, kOptional, "page ids"},
              {"seq_lens", "batch_size", kIds, kRead, kOptional, "kv lengths in tokens"},
              {"out", rows("total_q num_qo_heads head_dim_vo", "num_qo_heads head_dim_vo"), kAnyFloat, kWrite,
               Presence::kRequired, "rows outside qo_indptr are left alone"},
              {"lse", rows("total_q num_qo_heads", "num_qo_heads"), kF32, kWrite, kOptional, "log-sum-exp"},
              {"custom_mask", "num_mask_bytes", kBytes, kRead, kOptional, "packed bits, little endian, 1 = keep"},
              {"mask_indptr", "batch_size+1", kI32, kRead, kOptional, "byte offsets into custom_mask"},
              {"alibi_slopes", "num_qo_heads", kF32, kRead, kOptional, "per head"},
              {"sinks", "num_qo_heads", kF32, kRead, kOptional, "per head, natural-log units"},
              {"workspace", "workspace_bytes", kBytes, Access::kReadWrite, kOptional, "scratch"},
          });
}

struct EntrySchemas {
  OpSchema nhd, hnd;
};
inline constexpr EntrySchemas kPaged{schema("batch_attention", kPagedNhd), schema("batch_attention", kPagedHnd)};
inline constexpr EntrySchemas kRagged{schema("batch_attention", kRaggedNhd), schema("batch_attention", kRaggedHnd)};
inline constexpr EntrySchemas kSinglePrefill{schema("single_prefill", kRaggedNhd),
                                             schema("single_prefill", kRaggedHnd)};
inline constexpr EntrySchemas kSingleDecode{schema("single_decode", kRaggedNhd, false),
                                            schema("single_decode", kRaggedHnd, false)};
inline constexpr EntrySchemas kPrefillPaged{schema("batch_prefill_paged", kPagedNhd),
                                            schema("batch_prefill_paged", kPagedHnd)};
inline constexpr EntrySchemas kPrefillRagged{schema("batch_prefill_ragged", kRaggedNhd),
                                             schema("batch_prefill_ragged", kRaggedHnd)};
inline constexpr EntrySchemas kBatchDecode{schema("batch_decode", kPagedNhd), schema("batch_decode", kPagedHnd)};

}  // namespace fulmen::attention::schemas
