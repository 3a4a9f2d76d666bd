// SPDX-License-Identifier: Apache-2.0
// Schemas of the attention entry points and their cross-checks. What happens then: attention_run.cc.
#include <fulmen/attention/call.h>
#include <fulmen/attention/schemas.h>
#include <fulmen/core/math.h>

#include <cmath>

#include "src/ops/host_lengths.h"

namespace fulmen {
namespace {

using namespace attention::schemas;

const EntrySchemas& schemas_of(AttentionEntry entry, bool paged) {
  switch (entry) {
    case AttentionEntry::kBatchAttention: return paged ? kPaged : kRagged;
    case AttentionEntry::kSinglePrefill: return kSinglePrefill;
    case AttentionEntry::kSingleDecode: return kSingleDecode;
    case AttentionEntry::kBatchPrefillPaged: return kPrefillPaged;
    case AttentionEntry::kBatchPrefillRagged: return kPrefillRagged;
    case AttentionEntry::kBatchDecode: return kBatchDecode;
  }
  return kPaged;
}

// Which tables the call brings, and that they are what its kind of K and V and its entry point take.
void check_tables(const AttentionArgs& a, std::string_view op, AttentionEntry entry, bool paged) {
  const auto refuse = [&](const TensorView& t, std::string_view name, std::string_view why) {
    if (t.defined()) fail(op, name, why);
  };
  const auto need = [&](const TensorView& t, std::string_view name) {
    if (!t.defined()) fail(op, name, "is missing");
  };
  const bool single = entry == AttentionEntry::kSinglePrefill || entry == AttentionEntry::kSingleDecode;
  if (single || entry == AttentionEntry::kBatchDecode)
    refuse(a.qo_indptr, "qo_indptr", "is given, which this op does not take");
  if (single) refuse(a.kv_indptr, "kv_indptr", "is given, which this op does not take");
  if (entry == AttentionEntry::kBatchPrefillPaged || entry == AttentionEntry::kBatchPrefillRagged)
    need(a.qo_indptr, "qo_indptr");
  if (entry == AttentionEntry::kBatchPrefillRagged) need(a.kv_indptr, "kv_indptr");
  if (!paged) {
    refuse(a.kv_indices, "kv_indices", "is given, but k is not paged");
    refuse(a.last_page_len, "last_page_len", "is given, but k is not paged");
    refuse(a.block_tables, "block_tables", "is given, but k is not paged");
    refuse(a.seq_lens, "seq_lens", "is given, but k is not paged");
    return;
  }
  if (a.block_tables.defined()) {
    refuse(a.kv_indptr, "kv_indptr", "is given beside block_tables");
    refuse(a.kv_indices, "kv_indices", "is given beside block_tables");
    refuse(a.last_page_len, "last_page_len", "is given beside block_tables");
    need(a.seq_lens, "seq_lens");
    return;
  }
  need(a.kv_indptr, "kv_indptr");
  need(a.kv_indices, "kv_indices");
  if (!a.seq_lens.defined()) return need(a.last_page_len, "last_page_len");
  refuse(a.last_page_len, "last_page_len", "is given beside seq_lens");
}

void check_options(const AttentionOptions& o, std::string_view op) {
  const auto finite = [&](float x, std::string_view name) {
    require(std::isfinite(x), op, name, x, "a finite number");
  };
  require(o.window_left >= -1, op, "window_left", o.window_left, "-1 or more");
  require(o.logits_soft_cap >= 0 && std::isfinite(o.logits_soft_cap), op, "logits_soft_cap", o.logits_soft_cap,
          "0 or more");
  require(!std::isinf(o.sm_scale), op, "sm_scale", o.sm_scale, "a finite number");
  finite(o.q_scale, "q_scale");
  finite(o.k_scale, "k_scale");
  finite(o.v_scale, "v_scale");
  require(o.rope_theta >= 0 && std::isfinite(o.rope_theta), op, "rope_theta", o.rope_theta, "0 or more");
  require(o.rope_scale > 0 && std::isfinite(o.rope_scale), op, "rope_scale", o.rope_scale, "a positive number");
  require(o.fixed_split_len >= 0, op, "fixed_split_len", o.fixed_split_len, "0 or more");
}

void check_head_dim(int64_t dim, std::string_view op, std::string_view tensor) {
  if (dim < 8 || dim > 576 || dim % 8 != 0)
    fail(op, tensor, "head_dim is " + std::to_string(dim) + ", expected a multiple of 8 from 8 to 576");
}

AttentionDims check_shapes(const AttentionArgs& a, AttentionEntry entry) {
  const bool paged_entry = entry == AttentionEntry::kBatchPrefillPaged || entry == AttentionEntry::kBatchDecode;
  const bool paged = entry == AttentionEntry::kBatchAttention ? a.k.rank == 4 : paged_entry;
  const OpSchema& s = attention_schema(entry, a.options.kv_layout, paged);
  AttentionArgs t = a;  // index tensors may be host memory
  for (TensorView* ids :
       {&t.qo_indptr, &t.kv_indptr, &t.kv_indices, &t.last_page_len, &t.block_tables, &t.seq_lens, &t.mask_indptr})
    if (ids->device_type == DeviceType::kCpu) ids->device_type = a.q.device_type, ids->device_id = a.q.device_id;
  const Dims d =
      check(s, {&t.q, &t.k, &t.v, &t.qo_indptr, &t.kv_indptr, &t.kv_indices, &t.last_page_len, &t.block_tables,
                &t.seq_lens, &t.out, &t.lse, &t.custom_mask, &t.mask_indptr, &t.alibi_slopes, &t.sinks, &t.workspace});
  check_tables(a, s.op(), entry, paged);
  check_options(a.options, s.op());
  AttentionDims dims{.batch_size = d["batch_size"],
                     .total_q = entry == AttentionEntry::kSingleDecode ? 1 : d["total_q"],
                     .num_qo_heads = d["num_qo_heads"],
                     .num_kv_heads = d["num_kv_heads"],
                     .head_dim_qk = d["head_dim_qk"],
                     .head_dim_vo = d["head_dim_vo"],
                     .page_size = paged ? d["page_size"] : 0};
  if (!paged && !a.kv_indptr.defined()) {  // one request; mask_indptr may have bound another number
    if (dims.batch_size != 1 && dims.batch_size != -1)
      fail(s.op(), "kv_indptr",
           "is missing, but other tensors describe " + std::to_string(dims.batch_size) + " requests");
    dims.batch_size = 1;
  }
  if (paged && dims.page_size < 1) fail(s.op(), "k", "page_size is 0, expected 1 or more");
  check_head_dim(dims.head_dim_qk, s.op(), "q");
  check_head_dim(dims.head_dim_vo, s.op(), "v");
  if (dims.num_kv_heads < 1 || dims.num_qo_heads < 1 || dims.num_qo_heads % dims.num_kv_heads != 0)
    fail(s.op(), "q",
         "num_qo_heads is " + std::to_string(dims.num_qo_heads) + ", expected a multiple of num_kv_heads, " +
             std::to_string(dims.num_kv_heads));
  require(dims.num_qo_heads <= INT32_MAX, s.op(), "num_qo_heads", dims.num_qo_heads, "less than 2^31");
  if (a.v.dtype != a.k.dtype)
    fail(s.op(), "v", std::string("dtype is ") + name_of(a.v.dtype) + ", expected k's, " + name_of(a.k.dtype));
  if (a.custom_mask.defined() && !a.mask_indptr.defined() && dims.batch_size > 1)
    fail(s.op(), "mask_indptr", "is missing, but the batch has " + std::to_string(dims.batch_size) + " requests");
  if (!a.custom_mask.defined() && a.mask_indptr.defined()) fail(s.op(), "mask_indptr", "is given without custom_mask");
  return dims;
}

void swap_axes(TensorView& t, int32_t a, int32_t b) {
  std::swap(t.shape[a], t.shape[b]);
  std::swap(t.strides[a], t.strides[b]);
}

}  // namespace

const OpSchema& attention_schema(AttentionEntry entry, KvLayout layout, bool paged) {
  const EntrySchemas& s = schemas_of(entry, paged);
  return layout == KvLayout::kHND ? s.hnd : s.nhd;
}

AttentionDims check(const AttentionArgs& args, AttentionEntry entry) {
  AttentionArgs copy = args;
  std::vector<attention::PlanRequest> requests;
  return attention::prepare(copy, entry, requests);
}

void batch_attention(const AttentionArgs& args, const Context& context) {
  run_attention(args, AttentionEntry::kBatchAttention, context);
}
void single_prefill(const AttentionArgs& args, const Context& c) {
  run_attention(args, AttentionEntry::kSinglePrefill, c);
}
void single_decode(const AttentionArgs& args, const Context& c) {
  run_attention(args, AttentionEntry::kSingleDecode, c);
}
void batch_prefill_paged(const AttentionArgs& args, const Context& c) {
  run_attention(args, AttentionEntry::kBatchPrefillPaged, c);
}
void batch_prefill_ragged(const AttentionArgs& args, const Context& c) {
  run_attention(args, AttentionEntry::kBatchPrefillRagged, c);
}
void batch_decode(const AttentionArgs& args, const Context& c) { run_attention(args, AttentionEntry::kBatchDecode, c); }

namespace attention {

AttentionArgs canonical(const AttentionArgs& args, AttentionEntry entry) {
  AttentionArgs a = args;
  if (a.options.kv_layout == KvLayout::kHND) {
    swap_axes(a.k, a.k.rank - 3, a.k.rank - 2);
    swap_axes(a.v, a.v.rank - 3, a.v.rank - 2);
    a.options.kv_layout = KvLayout::kNHD;
  }
  if (entry == AttentionEntry::kSingleDecode) {
    a.q = insert_axis(a.q, 0);
    a.out = insert_axis(a.out, 0);
    if (a.lse.defined()) a.lse = insert_axis(a.lse, 0);
  }
  return a;
}

AttentionDims checked(AttentionArgs& args, AttentionEntry entry) {
  const AttentionDims dims = check_shapes(args, entry);
  args = canonical(args, entry);
  return dims;
}

AttentionDims prepare(AttentionArgs& args, AttentionEntry entry, std::vector<PlanRequest>& requests,
                      const Context& context) {
  const AttentionDims dims = checked(args, entry);
  requests = requests_of(HostLengths(args, context).args, dims, entry);
  return dims;
}

PlanConfig plan_config(const AttentionArgs& args, const AttentionDims& dims) {
  PlanConfig c;
  c.num_qo_heads = int32_t(dims.num_qo_heads);
  c.num_kv_heads = int32_t(dims.num_kv_heads);
  c.causal = args.options.causal && !args.custom_mask.defined();
  c.window_left = attention::window_of(args.options);
  c.disable_split = args.options.disable_split;
  c.fixed_split_len = args.options.fixed_split_len;
  return c;
}

}  // namespace attention
}  // namespace fulmen
