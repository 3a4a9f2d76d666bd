// SPDX-License-Identifier: Apache-2.0
// The launch of attention: lengths → plan → kernel. Lengths that a device holds stay there, if its backend plans there.
#include <fulmen/attention/call.h>
#include <fulmen/attention/cascade_choice.h>
#include <fulmen/runtime/registry.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "src/ops/host_lengths.h"
#include "src/ops/overlap.h"

namespace fulmen {
namespace attention {

namespace {

const runtime::OpHandle& op() {
  static const runtime::OpHandle handle = runtime::op_handle("batch_attention");
  return handle;
}

// Whether every tensor that says lengths lies where q does, on a device whose backend plans there.
bool plans_on_device(AttentionCall& call, const Context& context) {
  const AttentionArgs& a = *call.args;
  if (a.q.device_type == DeviceType::kCpu) return false;
  for (const TensorView* t : {&a.qo_indptr, &a.kv_indptr, &a.last_page_len, &a.seq_lens, &a.mask_indptr})
    if (t->defined() && t->device_type != a.q.device_type) return false;
  call.step = AttentionCall::kShape;
  return runtime::choose(op(), a.out.device_type, a.out.device_id, &call, context).row != nullptr;
}

void check_rows(const AttentionArgs& a, const AttentionDims& d) {
  if (a.qo_indptr.defined() || (d.batch_size == 0 ? d.total_q == 0 : d.total_q % d.batch_size == 0)) return;
  fail("batch_attention", "q",
       "has " + std::to_string(d.total_q) + " rows, expected a multiple of batch_size, " +
           std::to_string(d.batch_size) + ", where qo_indptr is missing");
}

// The most that a plan of these shapes may hold.
PlanView shape_of(AttentionCall& call, const Context& context) {
  check_rows(*call.args, call.dims);
  PlanView view;
  view.header.config = plan_config(*call.args, call.dims);
  call.header = &view.header;
  call.step = AttentionCall::kShape;
  runtime::launch(op(), call.args->out, &call, context);
  return view;
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

// The caller's workspace, which must be large enough for what was measured.
void give_workspace(AttentionCall& call, const TensorView& workspace) {
  if (call.workspace_bytes > workspace.num_elements())
    fail("batch_attention", "workspace",
         "has " + std::to_string(workspace.num_elements()) + " bytes, expected " +
             std::to_string(call.workspace_bytes) + " or more");
  call.workspace = workspace.data;
  call.workspace_bytes = workspace.num_elements();
}

// Uploads to or runs in it.
void use_workspace(AttentionCall& call, AttentionCall::Step step, const TensorView& workspace, const Context& context) {
  give_workspace(call, workspace);
  call.step = step;
  runtime::launch(op(), call.args->out, &call, context);
}

// With the caller's workspace or a block of its own.
void run_with(AttentionCall& call, const Context& context) {
  const AttentionArgs& args = *call.args;
  const int64_t bytes = measure(call, context);
  if (args.workspace.defined()) return use_workspace(call, AttentionCall::kRun, args.workspace, context);
  if (args.q.device_type != DeviceType::kCpu) {  // the row allocates on its stream
    call.made = nullptr;
    call.step = AttentionCall::kRun;
    return runtime::launch(op(), args.out, &call, context);
  }
  const std::unique_ptr<uint8_t[]> own(new uint8_t[size_t(bytes)]);  // a kernel reads nothing that it did not write
  use_workspace(call, AttentionCall::kRun, view_of(own.get(), {bytes}), context);
}

// Whether what `a` writes is memory of what `b` reads or writes.
bool writes_into(const AttentionArgs& a, const AttentionArgs& b) {
  const auto begin = [](const TensorView& t) { return reinterpret_cast<uintptr_t>(t.data); };
  const auto end = [&](const TensorView& t) {
    int64_t last = 0;
    for (int32_t i = 0; i < t.rank; ++i) last += (t.shape[i] - 1) * t.strides[i];
    return begin(t) + uintptr_t((last + 1) * size_of(t.dtype));
  };
  const TensorView* const tensors[] = {
      &b.q,        &b.k,   &b.v,   &b.qo_indptr,   &b.kv_indptr,   &b.kv_indices,   &b.last_page_len, &b.block_tables,
      &b.seq_lens, &b.out, &b.lse, &b.custom_mask, &b.mask_indptr, &b.alibi_slopes, &b.sinks,         &b.workspace};
  for (const TensorView* w : {&a.out, &a.lse, &a.workspace}) {
    if (!w->defined() || w->num_elements() == 0) continue;
    const uintptr_t first = begin(*w), past = end(*w);
    for (const TensorView* t : tensors)
      if (t->defined() && begin(*t) < past && t->num_elements() > 0 && first < end(*t) && shares_elements(*w, *t))
        return true;
  }
  return false;
}

// Whether the device's row planned the call to run beside another, as it was asked to.
bool is_beside(const AttentionCall& call) {
  const PlanConfig& c = call.plan->header.config;
  return call.beside != nullptr && c.few_q == 0 && c.few_workers > 0;
}

void same(int64_t got, int64_t planned, std::string_view name) {
  require(got == planned, "batch_attention", name, got, [&] { return std::to_string(planned) + ", as planned"; });
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
  if (plan.header.on_device != 0) check_rows(args, dims);
  if (plan.header.on_device != 0)
    return require(dims.total_q <= plan.header.total_q, "batch_attention", "total_q", dims.total_q,
                   [&] { return std::to_string(plan.header.total_q) + " or less, as planned"; });
  require(dims.total_q >= plan.header.total_q, "batch_attention", "total_q", dims.total_q,
          [&] { return std::to_string(plan.header.total_q) + " or more, as planned"; });
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

// A backend prints the name into C++.
void check_name(const VariantCode* variant) {
  if (variant == nullptr) return;
  const std::string& name = variant->name;
  const auto good = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == ':'; };
  if (name.empty() || !std::all_of(name.begin(), name.end(), good))
    fail("batch_attention", "variant", "is named \"" + name + "\", expected a C++ name");
}

}  // namespace

namespace {

// A call under a plan, both checked against each other.
struct PlannedCall {
  AttentionArgs args;
  AttentionCall call;
  PlannedCall(const PlanView& plan, const AttentionArgs& given, AttentionEntry entry, const PlannedRun& how)
      : args(given) {
    check_name(how.variant);
    call.dims = checked(args, entry);
    call.args = &args;
    call.variant = how.variant;
    call.made = how.made;
    call.above = how.above;
    call.plan = &plan;
    call.resident = how.resident;
    check_config(plan, args, call.dims);
    if (args.q.device_type == DeviceType::kCpu) check_lengths(plan, requests_of(args, call.dims, entry));
  }
  PlannedCall(const PlannedCall&) = delete;
  PlannedCall& operator=(const PlannedCall&) = delete;
};

}  // namespace

void BatchAttention::plan(const AttentionArgs& args, AttentionEntry entry, const BatchAttention* beside) {
  adopt(args, entry, nullptr, beside);
}

void BatchAttention::set_plan(const Plan& plan, const AttentionArgs& args, AttentionEntry entry) {
  verify(plan.view());
  adopt(args, entry, &plan, nullptr);
}

void BatchAttention::plan_on_device(const AttentionArgs& args, AttentionEntry entry, const BatchAttention* beside) {
  AttentionArgs a = args;
  AttentionCall call, other;
  PlanView planned;
  if (beside != nullptr) planned = beside->plan_.view(), other.plan = &planned, other.dims = beside->dims_;
  call.dims = checked(a, entry);
  call.args = &a;
  if (beside != nullptr) call.beside = &other;
  const PlanView view = shape_of(call, context_);
  call.plan = &view;
  workspace_bytes_ = max_workspace_bytes_ = measure(call, context_);
  plan_bytes_ = call.plan_bytes;
  uploaded_to_ = nullptr;
  made_ = {};
  plan_ = {view.header, {}};
  dims_ = call.dims, entry_ = entry;
  runs_beside_ = is_beside(call);
}

void BatchAttention::keep_plan_in(const TensorView& memory) {
  require(memory.num_elements() >= plan_bytes_, "batch_attention", "memory of the plan", memory.num_elements(),
          [&] { return std::to_string(plan_bytes_) + " bytes or more"; });
  if (!made_.memory.defined()) workspace_bytes_ = max_workspace_bytes_ = workspace_bytes_ - plan_bytes_;
  made_ = {.memory = memory};
}

void BatchAttention::adopt(const AttentionArgs& args, AttentionEntry entry, const Plan* saved,
                           const BatchAttention* beside) {
  AttentionArgs a = args;
  std::vector<PlanRequest> requests;
  AttentionCall call, other;
  PlanView planned;
  if (beside != nullptr) planned = beside->plan_.view(), other.plan = &planned, other.dims = beside->dims_;
  call.dims = prepare(a, entry, requests, context_);
  call.args = &a;
  if (beside != nullptr) call.beside = &other;
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
  const PlanConfig& config = view.header.config;
  if (config.few_q > 0) view.header.few_slots = max_slots(config.few_workers);
  view.header.num_slots = max_slots(config.num_workers) + view.header.few_slots;
  max_workspace_bytes_ = measure(call, context_);
  plan_ = std::move(made);
  dims_ = call.dims, entry_ = entry;
  runs_beside_ = is_beside(call);
}

PlannedRun BatchAttention::as_planned(const AttentionArgs& args, const VariantCode* variant) const {
  const bool resident = uploaded_to_ != nullptr && args.workspace.data == uploaded_to_;
  return {resident, &made_, variant, nullptr};
}

void BatchAttention::run(const AttentionArgs& args, const VariantCode* variant) const {
  run_planned(plan_.view(), args, entry_, context_, as_planned(args, variant));
}

void BatchAttention::run_level(const AttentionArgs& args, const LevelsAbove& above) const {
  PlannedRun how = as_planned(args, nullptr);
  how.above = &above;
  run_planned(plan_.view(), args, entry_, context_, how);
}

void BatchAttention::run_beside(const AttentionArgs& args, const BatchAttention& other, const AttentionArgs& other_args,
                                const VariantCode* variant, const VariantCode* other_variant) const {
  const PlanView plan = plan_.view(), other_plan = other.plan_.view();
  const auto has_none = [](const PlanView& p, const AttentionArgs& a) {
    return p.header.num_items == 0 || p.header.batch_size == 0 || a.q.num_elements() == 0;
  };
  const auto in_turn = [&] {
    other.run(other_args, other_variant);
    run(args, variant);
  };
  const bool here = args.out.device_type == other_args.out.device_type &&
                    args.out.device_id == other_args.out.device_id && context_.stream == other.context_.stream;
  if (!runs_beside_ || !here || has_none(plan, args) || has_none(other_plan, other_args)) return in_turn();
  PlannedCall mine(plan, args, entry_, as_planned(args, variant));
  PlannedCall theirs(other_plan, other_args, other.entry_, other.as_planned(other_args, other_variant));
  if (writes_into(mine.args, theirs.args) || writes_into(theirs.args, mine.args)) return in_turn();
  measure(theirs.call, context_);
  if (theirs.args.workspace.defined())
    give_workspace(theirs.call, theirs.args.workspace);
  else
    theirs.call.made = nullptr;
  theirs.call.step = AttentionCall::kRun;
  mine.call.beside = &theirs.call;
  run_with(mine.call, context_);
}

void run_planned(const PlanView& plan, const AttentionArgs& args, AttentionEntry entry, const Context& context,
                 const PlannedRun& how) {
  PlannedCall planned(plan, args, entry, how);
  AttentionCall& call = planned.call;
  const AttentionArgs& a = planned.args;
  if (how.above != nullptr && !chooses_cascades(a.q.device_type, a.q.device_id))
    throw Error(Code::kUnsupported, "batch_attention: levels that this device merges in a launch of its own");
  if (plan.header.num_items == 0) return;
  if (a.workspace.defined() || a.q.device_type != DeviceType::kCpu) return run_with(call, context);
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

using attention::AttentionCall;

void plan_and_run(const AttentionArgs& given, AttentionEntry entry, const attention::VariantCode* variant,
                  const Context& context) {
  AttentionArgs args = given;
  AttentionCall call;
  call.variant = variant;
  call.dims = attention::checked(args, entry);
  call.args = &args;
  if (attention::plans_on_device(call, context)) {
    if (call.dims.total_q == 0 || call.dims.batch_size == 0) return;
    const attention::PlanView view = attention::shape_of(call, context);
    call.plan = &view;
    return attention::run_with(call, context);
  }
  const std::vector<attention::PlanRequest> requests =
      attention::requests_of(attention::HostLengths(args, context).args, call.dims, entry);
  const attention::Plan plan = attention::plan_call(call, requests, context);
  if (plan.header.num_items == 0) return;
  const attention::PlanView view = plan.view();
  call.plan = &view;
  attention::run_with(call, context);
}

}  // namespace

void run_attention(const AttentionArgs& args, AttentionEntry entry, const Context& context) {
  plan_and_run(args, entry, nullptr, context);
}

void attention::run_variant(const AttentionArgs& args, const VariantCode& variant, const Context& context) {
  check_name(&variant);
  plan_and_run(args, AttentionEntry::kBatchAttention, &variant, context);
}

}  // namespace fulmen
