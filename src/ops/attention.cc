// SPDX-License-Identifier: Apache-2.0
// Schemas of the attention entry points, their cross-checks, and the launch: lengths → plan → kernel.
#include <fulmen/attention/call.h>
#include <fulmen/attention/schemas.h>
#include <fulmen/core/math.h>
#include <fulmen/runtime/registry.h>

#include <cmath>
#include <memory>

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

AttentionDims prepare(AttentionArgs& args, AttentionEntry entry, std::vector<PlanRequest>& requests,
                      const Context& context) {
  const AttentionDims dims = check_shapes(args, entry);
  args = canonical(args, entry);
  requests = requests_of(HostLengths(args, context).args, dims, entry);
  return dims;
}

PlanConfig plan_config(const AttentionArgs& args, const AttentionDims& dims) {
  PlanConfig c;
  c.num_qo_heads = int32_t(dims.num_qo_heads);
  c.num_kv_heads = int32_t(dims.num_kv_heads);
  c.causal = args.options.causal && !args.custom_mask.defined();
  c.window_left = args.options.window_left;
  c.disable_split = args.options.disable_split;
  c.fixed_split_len = args.options.fixed_split_len;
  return c;
}

namespace {

const runtime::OpHandle& op() {
  static const runtime::OpHandle handle = runtime::op_handle("batch_attention");
  return handle;
}

Plan plan_call(AttentionCall& call, std::span<const PlanRequest> requests, const Context& context) {
  PlanConfig config = plan_config(*call.args, call.dims);
  call.config = &config;
  call.requests = requests;
  call.step = AttentionCall::kConfigure;
  runtime::launch(op(), call.args->out, &call, context);
  return make_plan(config, requests);
}

int64_t measure(AttentionCall& call, const Context& context) {
  call.step = AttentionCall::kMeasure;
  runtime::launch(op(), call.args->out, &call, context);
  return call.workspace_bytes;
}

// Uploads to or runs in the caller's workspace, which must be large enough.
void use_workspace(AttentionCall& call, AttentionCall::Step step, const TensorView& workspace, const Context& context) {
  if (call.workspace_bytes > workspace.num_elements())
    fail("batch_attention", "workspace",
         "has " + std::to_string(workspace.num_elements()) + " bytes, expected " +
             std::to_string(call.workspace_bytes) + " or more");
  call.workspace = workspace.data;
  call.workspace_bytes = workspace.num_elements();
  call.step = step;
  runtime::launch(op(), call.args->out, &call, context);
}

void same(int64_t got, int64_t planned, std::string_view name) {
  require(got == planned, "batch_attention", name, got, std::to_string(planned) + ", as planned");
}

// The plan was made for these options and sizes.
void check_config(const PlanView& plan, const AttentionArgs& args, const AttentionDims& dims) {
  const PlanConfig is = plan.header.config, want = plan_config(args, dims);
  same(want.num_qo_heads, is.num_qo_heads, "num_qo_heads");
  same(want.num_kv_heads, is.num_kv_heads, "num_kv_heads");
  same(want.causal, is.causal, "causal");
  same(want.window_left, is.window_left, "window_left");
  same(want.fixed_split_len, is.fixed_split_len, "fixed_split_len");
  same(dims.batch_size, plan.header.batch_size, "batch_size");
  require(dims.total_q >= plan.header.total_q, "batch_attention", "total_q", dims.total_q,
          std::to_string(plan.header.total_q) + " or more, as planned");
}

// And for these lengths.
void check_lengths(const PlanView& plan, std::span<const PlanRequest> requests) {
  for (size_t b = 0; b < requests.size(); ++b) {
    const PlanRequest &got = requests[b], &planned = plan.requests()[b];
    const std::string who = "of request " + std::to_string(b);
    same(got.qo_begin, planned.qo_begin, "qo_indptr " + who);
    same(got.qo_len, planned.qo_len, "qo_len " + who);
    same(got.kv_len, planned.kv_len, "kv_len " + who);
  }
}

}  // namespace

void BatchAttention::plan(const AttentionArgs& args, AttentionEntry entry) { adopt(args, entry, nullptr); }

void BatchAttention::set_plan(const Plan& plan, const AttentionArgs& args, AttentionEntry entry) {
  verify(plan.view());
  adopt(args, entry, &plan);
}

void BatchAttention::adopt(const AttentionArgs& args, AttentionEntry entry, const Plan* saved) {
  AttentionArgs a = args;
  std::vector<PlanRequest> requests;
  AttentionCall call;
  call.dims = prepare(a, entry, requests, context_);
  call.args = &a;
  Plan made = saved != nullptr ? *saved : plan_call(call, requests, context_);
  PlanView view = made.view();
  check_config(view, a, call.dims);
  check_lengths(view, requests);
  call.plan = &view;
  workspace_bytes_ = measure(call, context_);
  uploaded_to_ = nullptr;
  if (a.workspace.defined() && a.workspace.num_elements() >= workspace_bytes_) {
    use_workspace(call, AttentionCall::kUpload, a.workspace, context_);
    uploaded_to_ = a.workspace.data;
  }
  view.header.num_slots = max_slots(view.header.config.num_workers);
  max_workspace_bytes_ = measure(call, context_);
  plan_ = std::move(made);
  entry_ = entry;
}

void BatchAttention::run(const AttentionArgs& args) const {
  run_planned(plan_.view(), args, entry_, context_, uploaded_to_ != nullptr && args.workspace.data == uploaded_to_);
}

void run_planned(const PlanView& plan, const AttentionArgs& args, AttentionEntry entry, const Context& context,
                 bool resident) {
  AttentionArgs a = args;
  AttentionCall call;
  call.dims = check_shapes(a, entry);
  a = canonical(a, entry);
  call.args = &a;
  check_config(plan, a, call.dims);
  if (a.q.device_type == DeviceType::kCpu) check_lengths(plan, requests_of(a, call.dims, entry));
  if (plan.header.num_items == 0) return;
  call.plan = &plan;
  call.resident = resident;
  measure(call, context);
  use_workspace(call, AttentionCall::kRun, a.workspace, context);
}

int64_t workspace_bytes_of(const PlanView& plan, const AttentionArgs& args, AttentionEntry entry,
                           const Context& context) {
  AttentionArgs a = args;
  std::vector<PlanRequest> requests;
  AttentionCall call;
  call.dims = prepare(a, entry, requests);
  call.args = &a;
  call.plan = &plan;
  return measure(call, context);
}

}  // namespace attention

namespace {

// Plans, takes the caller's workspace or a block of its own, and runs.
void plan_and_run(const AttentionArgs& given, AttentionEntry entry, const attention::VariantCode* variant,
                  const Context& context) {
  AttentionArgs args = given;
  std::vector<attention::PlanRequest> requests;
  attention::AttentionCall call;
  call.variant = variant;
  call.dims = attention::prepare(args, entry, requests, context);
  call.args = &args;
  const attention::Plan plan = attention::plan_call(call, requests, context);
  if (plan.header.num_items == 0) return;
  const attention::PlanView view = plan.view();
  call.plan = &view;
  const int64_t bytes = attention::measure(call, context);
  std::unique_ptr<uint8_t[]> own;
  if (!args.workspace.defined() && args.q.device_type != DeviceType::kCpu) {  // the row allocates on its stream
    call.step = attention::AttentionCall::kRun;
    return runtime::launch(attention::op(), args.out, &call, context);
  }
  if (!args.workspace.defined()) {
    own.reset(new uint8_t[size_t(bytes)]);  // not initialised: a kernel reads nothing that it did not write
    args.workspace = view_of(own.get(), {bytes});
  }
  attention::use_workspace(call, attention::AttentionCall::kRun, args.workspace, context);
}

}  // namespace

void run_attention(const AttentionArgs& args, AttentionEntry entry, const Context& context) {
  plan_and_run(args, entry, nullptr, context);
}

void attention::run_variant(const AttentionArgs& args, const VariantCode& variant, const Context& context) {
  plan_and_run(args, AttentionEntry::kBatchAttention, &variant, context);
}

}  // namespace fulmen
