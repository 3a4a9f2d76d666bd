// SPDX-License-Identifier: Apache-2.0
// attention: softmax attention of ragged queries over ragged or paged keys and values; every entry point is this one
// op.
//   z_ij = q_i·k_j · sm_scale · q_scale · k_scale      soft cap: cap · tanh(z/cap)      ALiBi: + slope_h · (j - i)
//   out_i = v_scale · Σ_j exp(z_ij) v_j / Σ_i          Σ_i = Σ_j exp(z_ij) + exp(sink_h)         lse_i = ln Σ_i
// j runs over the keys that row i sees: causal (j + qo_len <= kv_len + i), window (j + qo_len + window_left >=
// kv_len + i), or the bits of a mask, which replace causal. No visible key: out = 0, lse = -inf (ln of the sink, if
// any). Accumulates in f32. Error bound and dtype table: docs/ops/attention.md.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/cost.h>
#include <fulmen/core/schema.h>

namespace fulmen {

enum class KvLayout : int32_t { kNHD, kHND };  // [.., token, head, dim] or [.., head, token, dim]
enum class LogBase : int32_t { kE, k2 };

struct AttentionOptions {
  KvLayout kv_layout = KvLayout::kNHD;
  bool causal = false;        // aligned to the bottom right; ignored where a custom mask is given
  int32_t window_left = -1;   // keys before a row's own position that it still sees; -1: all
  float logits_soft_cap = 0;  // 0: off
  float sm_scale = 0;         // 0 or NaN: 1/sqrt(head_dim_qk)
  float q_scale = 1, k_scale = 1, v_scale = 1;
  float rope_theta = 0;  // > 0: rotates q and k on the fly, halves split; 0: off
  float rope_scale = 1;  // positions are divided by it
  LogBase lse_base = LogBase::kE;
  int32_t fixed_split_len = 0;  // > 0: a request's bits do not depend on the rest of the batch nor on the threads
  bool disable_split = false;   // one worker walks all keys of a row
};

// Keys and values are ragged (rank 3) or paged (rank 4), in NHD or HND; shapes below are NHD's. A request's pages come
// from a CSR table (kv_indptr, kv_indices, last_page_len or seq_lens) or from block_tables and seq_lens.
struct AttentionArgs {
  TensorView q;           // [total_q, num_qo_heads, head_dim_qk]
  TensorView k;           // [total_kv, num_kv_heads, head_dim_qk] or [num_pages, page_size, num_kv_heads, head_dim_qk]
  TensorView v;           // the same with head_dim_vo
  TensorView qo_indptr;   // [batch_size+1] offsets into total_q; absent: total_q / batch_size rows per request
  TensorView kv_indptr;   // [batch_size+1] offsets into total_kv (absent: one request) or into kv_indices
  TensorView kv_indices;  // [num_kv_indices] page ids
  TensorView last_page_len;  // [batch_size] each in 1..page_size
  TensorView block_tables;   // [batch_size, max_num_pages] page ids
  TensorView seq_lens;       // [batch_size] kv lengths in tokens
  TensorView out;            // [total_q, num_qo_heads, head_dim_vo] written
  TensorView lse;            // [total_q, num_qo_heads] f32, optional, written
  TensorView custom_mask;  // [num_mask_bytes] bits, little endian, a request's qo_len x kv_len from a byte on; 1 = keep
  TensorView mask_indptr;  // [batch_size+1] i32 byte offsets; absent: one request, from byte 0
  TensorView alibi_slopes;  // [num_qo_heads] f32
  TensorView sinks;         // [num_qo_heads] f32, natural-log units
  TensorView workspace;     // [workspace_bytes] optional scratch; absent: allocated for the call
  AttentionOptions options;
};

struct AttentionDims {
  int64_t batch_size, total_q, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo;
  int64_t page_size;  // 0: ragged
  bool paged() const { return page_size > 0; }
};

enum class AttentionEntry : int32_t {
  kBatchAttention,      // anything that AttentionArgs can say
  kSinglePrefill,       // one request, ragged keys, no tables
  kSingleDecode,        // the same with one query row and no row axis: q [num_qo_heads, head_dim_qk]
  kBatchPrefillPaged,   // qo_indptr and a page table; append and mixed batches are this too
  kBatchPrefillRagged,  // qo_indptr and kv_indptr
  kBatchDecode,         // a page table; total_q / batch_size rows per request, which must divide
};
const OpSchema& attention_schema(AttentionEntry entry, KvLayout layout, bool paged);

// Throws Error{kInvalidArgument}. Where the index tensors are host memory their contents are checked as well: offsets,
// lengths and every page id, so that no kernel reads outside the cache.
AttentionDims check(const AttentionArgs& args, AttentionEntry entry = AttentionEntry::kBatchAttention);

// The same by name: every one of the functions below.
void run_attention(const AttentionArgs& args, AttentionEntry entry, const Context& context = {});

void batch_attention(const AttentionArgs& args, const Context& context = {});
void single_prefill(const AttentionArgs& args, const Context& context = {});
void single_decode(const AttentionArgs& args, const Context& context = {});
void batch_prefill_paged(const AttentionArgs& args, const Context& context = {});
void batch_prefill_ragged(const AttentionArgs& args, const Context& context = {});
void batch_decode(const AttentionArgs& args, const Context& context = {});

// Bytes of K and V that some row sees, of Q and of the output, each once; two multiply-adds per pair and dim.
Cost cost(const AttentionArgs& args);

}  // namespace fulmen
