// SPDX-License-Identifier: Apache-2.0
// Attention and its cascade. One stateless function for every entry point: its name is the first argument. A plan is
// bytes: made once per batch shape, passed to each run, safe to save; None plans within the call.
#include <fulmen/attention/call.h>
#include <fulmen/ops/merge_state.h>

#include <cstring>
#include <memory>

#include "src/ffi/convert.h"

namespace fulmen::ffi {
namespace {

using tvm::ffi::Bytes;
using tvm::ffi::Optional;

AttentionEntry entry_of(const String& name) {
  constexpr std::pair<std::string_view, AttentionEntry> kEntries[] = {
      {"batch_attention", AttentionEntry::kBatchAttention},
      {"single_prefill", AttentionEntry::kSinglePrefill},
      {"single_decode", AttentionEntry::kSingleDecode},
      {"batch_prefill_paged", AttentionEntry::kBatchPrefillPaged},
      {"batch_prefill_ragged", AttentionEntry::kBatchPrefillRagged},
      {"batch_decode", AttentionEntry::kBatchDecode},
  };
  for (const auto& [text, entry] : kEntries)
    if (text == std::string_view(name.data(), name.size())) return entry;
  fail("attention", "entry", "is " + std::string(name.data(), name.size()) + ", which is no entry point");
}

attention::Plan plan_of(const Bytes& bytes) {
  std::vector<int32_t> words(bytes.size() / sizeof(int32_t));
  if (!words.empty()) std::memcpy(words.data(), bytes.data(), words.size() * sizeof(int32_t));
  return attention::load(words);
}

LogBase base_of(int64_t base) {
  require(base == 0 || base == 2, "attention", "lse_base", base, "0 (e) or 2");
  return base == 2 ? LogBase::k2 : LogBase::kE;
}

int32_t i32(int64_t value, const char* name) { return to_i32("attention", name, value); }

}  // namespace

void attention_(String entry, Tensor q, Tensor k, Tensor v, MaybeTensor qo_indptr, MaybeTensor kv_indptr,
                MaybeTensor kv_indices, MaybeTensor last_page_len, MaybeTensor block_tables, MaybeTensor seq_lens,
                Tensor out, MaybeTensor lse, MaybeTensor custom_mask, MaybeTensor mask_indptr, MaybeTensor alibi_slopes,
                MaybeTensor sinks, MaybeTensor workspace, Optional<Bytes> plan, bool is_hnd, bool causal,
                int64_t window_left, double logits_soft_cap, double sm_scale, double q_scale, double k_scale,
                double v_scale, double rope_theta, double rope_scale, int64_t lse_base, int64_t fixed_split_len,
                bool disable_split) {
  AttentionArgs args{.q = view(q),
                     .k = view(k),
                     .v = view(v),
                     .qo_indptr = view(qo_indptr),
                     .kv_indptr = view(kv_indptr),
                     .kv_indices = view(kv_indices),
                     .last_page_len = view(last_page_len),
                     .block_tables = view(block_tables),
                     .seq_lens = view(seq_lens),
                     .out = view(out),
                     .lse = view(lse),
                     .custom_mask = view(custom_mask),
                     .mask_indptr = view(mask_indptr),
                     .alibi_slopes = view(alibi_slopes),
                     .sinks = view(sinks),
                     .workspace = view(workspace),
                     .options = {.kv_layout = is_hnd ? KvLayout::kHND : KvLayout::kNHD,
                                 .causal = causal,
                                 .window_left = i32(window_left, "window_left"),
                                 .logits_soft_cap = float(logits_soft_cap),
                                 .sm_scale = float(sm_scale),
                                 .q_scale = float(q_scale),
                                 .k_scale = float(k_scale),
                                 .v_scale = float(v_scale),
                                 .rope_theta = float(rope_theta),
                                 .rope_scale = float(rope_scale),
                                 .lse_base = base_of(lse_base),
                                 .fixed_split_len = i32(fixed_split_len, "fixed_split_len"),
                                 .disable_split = disable_split}};
  const AttentionEntry e = entry_of(entry);
  const Context context = context_of(args.out);
  if (!plan.has_value()) return run_attention(args, e, context);
  const attention::Plan made = plan_of(*plan);
  std::unique_ptr<uint8_t[]> own;
  const int64_t bytes = attention::workspace_bytes_of(made.view(), args, e, context);
  if (!args.workspace.defined() || args.workspace.num_elements() < bytes) {
    own.reset(new uint8_t[size_t(bytes)]);
    args.workspace = view_of(own.get(), {bytes});
  }
  attention::run_planned(made.view(), args, e, context);
}

Bytes attention_plan_(String entry, MaybeTensor qo_indptr, MaybeTensor kv_indptr, MaybeTensor kv_indices,
                      MaybeTensor last_page_len, MaybeTensor block_tables, MaybeTensor seq_lens, int64_t total_q,
                      int64_t num_qo_heads, int64_t num_kv_heads, int64_t head_dim_qk, int64_t head_dim_vo,
                      int64_t page_size, int64_t kv_len, bool has_mask, bool causal, int64_t window_left,
                      int64_t fixed_split_len, bool disable_split) {
  const AttentionEntry e = entry_of(entry);
  AttentionArgs args =
      attention::placeholder({.qo_indptr = view(qo_indptr),
                              .kv_indptr = view(kv_indptr),
                              .kv_indices = view(kv_indices),
                              .last_page_len = view(last_page_len),
                              .block_tables = view(block_tables),
                              .seq_lens = view(seq_lens),
                              .options = {.causal = causal && !has_mask,
                                          .window_left = i32(window_left, "window_left"),
                                          .fixed_split_len = i32(fixed_split_len, "fixed_split_len"),
                                          .disable_split = disable_split}},
                             {total_q, num_qo_heads, num_kv_heads, head_dim_qk, head_dim_vo, page_size}, e);
  if (page_size == 0 && !args.kv_indptr.defined()) args.k.shape[0] = args.v.shape[0] = kv_len;
  attention::BatchAttention batch;
  batch.plan(args, e);
  const std::vector<int32_t> saved = attention::save(batch.plan());
  return Bytes(reinterpret_cast<const char*>(saved.data()), saved.size() * sizeof(int32_t));
}

String attention_plan_text_(Bytes plan) { return attention::to_string(plan_of(plan).view()); }
String attention_plan_svg_(Bytes plan) { return attention::to_svg(plan_of(plan).view()); }

void merge_state_(Tensor v_a, Tensor s_a, Tensor v_b, Tensor s_b, Tensor out, Tensor lse, MaybeTensor mask,
                  int64_t lse_base) {
  const TensorView o = view(out);
  merge_state({view(v_a), view(s_a), view(v_b), view(s_b), o, view(lse), view(mask), base_of(lse_base)}, context_of(o));
}

void merge_states_(Tensor v, Tensor s, Tensor out, Tensor lse, int64_t lse_base) {
  const TensorView o = view(out);
  merge_states({view(v), view(s), o, view(lse), base_of(lse_base)}, context_of(o));
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(
    attention,
    "entry, q, k, v, qo_indptr, kv_indptr, kv_indices, last_page_len, block_tables, seq_lens, out, lse, "
    "custom_mask, mask_indptr, alibi_slopes, sinks, workspace, plan, is_hnd, causal, window_left, "
    "logits_soft_cap, sm_scale, q_scale, k_scale, v_scale, rope_theta, rope_scale, lse_base, fixed_split_len, "
    "disable_split",
    "attention over ragged or paged keys; entry names the entry point, plan is attention_plan's result or None; "
    "sm_scale 0: 1/sqrt(head_dim); lse_base 0: natural, 2: base 2");
FULMEN_FFI_EXPORT(
    attention_plan,
    "entry, qo_indptr, kv_indptr, kv_indices, last_page_len, block_tables, seq_lens, total_q, num_qo_heads, "
    "num_kv_heads, head_dim_qk, head_dim_vo, page_size, kv_len, has_mask, causal, window_left, fixed_split_len, "
    "disable_split",
    "the plan of a batch shape, as bytes; page_size 0: ragged, with kv_len keys where kv_indptr is None");
FULMEN_FFI_EXPORT(attention_plan_text, "plan", "a plan in words: requests, work items, merges, balance");
FULMEN_FFI_EXPORT(attention_plan_svg, "plan", "a plan as a picture: which worker is busy when");
FULMEN_FFI_EXPORT(
    merge_state, "v_a, s_a, v_b, s_b, out, lse, mask, lse_base",
    "attention over the union of two sets of keys; out and lse may be v_a and s_a; rows whose mask is 0 stay");
FULMEN_FFI_EXPORT(merge_states, "v, s, out, lse, lse_base", "the same over v's second axis");
