// SPDX-License-Identifier: Apache-2.0
// Attention takes more arguments than a typed signature reads well with: one list, by position, serves every entry
// point (kArguments), with None for tensors that are not given. A plan is an object that holds the tables it was made
// from.
#include "src/ffi/attention.h"

#include <algorithm>

namespace fulmen::ffi {

void expect(const tvm::ffi::PackedArgs& args, int32_t n, const char* function) {
  if (args.size() != n)
    TVM_FFI_THROW(TypeError) << function << ": got " << args.size() << " arguments, expected " << n
                             << "; docs/ffi.md lists them";
}

// K and V as one array [num_pages, 2, …], given for both: its halves. Splitting it in Python takes longer than the
// call.
void split_cache(AttentionArgs* a) {
  if (a->k.rank != 5 || a->v.rank != 5 || a->k.data != a->v.data || a->k.shape[1] != 2) return;
  if (a->k.num_elements() > 0) a->v.data = a->v.as<char>() + a->v.strides[1] * size_of(a->v.dtype);
  for (TensorView* t : {&a->k, &a->v}) {
    std::copy(t->shape + 2, t->shape + 5, t->shape + 1);
    std::copy(t->strides + 2, t->strides + 5, t->strides + 1);
    t->rank = 4;
  }
}

namespace {

using tvm::ffi::AnyView;
using tvm::ffi::PackedArgs;

// In the order of AttentionArgs and AttentionOptions.
#define FULMEN_FFI_ATTENTION_ARGUMENTS                                                                            \
  "q, k, v, qo_indptr, kv_indptr, kv_indices, last_page_len, block_tables, seq_lens, out, lse, custom_mask, "     \
  "mask_indptr, "                                                                                                 \
  "alibi_slopes, sinks, workspace, kv_layout, causal, window_left, logits_soft_cap, sm_scale, q_scale, k_scale, " \
  "v_scale, "                                                                                                     \
  "rope_theta, rope_scale, lse_base, fixed_split_len, disable_split"
constexpr int32_t kNumArguments = 29;

KvLayout parse_layout(AnyView arg) {
  const std::string text = arg.cast<std::string>();
  if (text != "NHD" && text != "HND") fail("attention", "kv_layout", "is \"" + text + "\", expected NHD or HND");
  return text == "HND" ? KvLayout::kHND : KvLayout::kNHD;
}
LogBase parse_base(AnyView arg) {
  const std::string text = arg.cast<std::string>();
  if (text != "e" && text != "2") fail("attention", "lse_base", "is \"" + text + "\", expected e or 2");
  return text == "2" ? LogBase::k2 : LogBase::kE;
}
AttentionEntry parse_entry(AnyView arg) {
  const std::string text = arg.cast<std::string>();
  static constexpr std::pair<const char*, AttentionEntry> kEntries[] = {
      {"batch_attention", AttentionEntry::kBatchAttention},
      {"single_prefill", AttentionEntry::kSinglePrefill},
      {"single_decode", AttentionEntry::kSingleDecode},
      {"batch_prefill_paged", AttentionEntry::kBatchPrefillPaged},
      {"batch_prefill_ragged", AttentionEntry::kBatchPrefillRagged},
      {"batch_decode", AttentionEntry::kBatchDecode}};
  for (const auto& [name, entry] : kEntries)
    if (text == name) return entry;
  fail("attention", "entry", "is \"" + text + "\", which is no attention op");
}

// args[first ...] as kArguments names them. Braces evaluate from left to right.
AttentionArgs read(const PackedArgs& args, int32_t first) {
  int32_t i = first;
  AttentionArgs a{.q = tensor(args[i++]),
                  .k = tensor(args[i++]),
                  .v = tensor(args[i++]),
                  .qo_indptr = tensor(args[i++]),
                  .kv_indptr = tensor(args[i++]),
                  .kv_indices = tensor(args[i++]),
                  .last_page_len = tensor(args[i++]),
                  .block_tables = tensor(args[i++]),
                  .seq_lens = tensor(args[i++]),
                  .out = tensor(args[i++]),
                  .lse = tensor(args[i++]),
                  .custom_mask = tensor(args[i++]),
                  .mask_indptr = tensor(args[i++]),
                  .alibi_slopes = tensor(args[i++]),
                  .sinks = tensor(args[i++]),
                  .workspace = tensor(args[i++]),
                  .options = {}};
  a.options = {.kv_layout = parse_layout(args[i++]),
               .causal = args[i++].cast<bool>(),
               .window_left = to_i32("attention", "window_left", args[i++].cast<int64_t>()),
               .logits_soft_cap = number(args[i++]),
               .sm_scale = number(args[i++]),
               .q_scale = number(args[i++]),
               .k_scale = number(args[i++]),
               .v_scale = number(args[i++]),
               .rope_theta = number(args[i++]),
               .rope_scale = number(args[i++]),
               .lse_base = parse_base(args[i++]),
               .fixed_split_len = to_i32("attention", "fixed_split_len", args[i++].cast<int64_t>()),
               .disable_split = args[i++].cast<bool>()};
  split_cache(&a);
  return a;
}

void run_entry(AttentionEntry entry, const AttentionArgs& a, const Context& context) {
  switch (entry) {
    case AttentionEntry::kBatchAttention: return batch_attention(a, context);
    case AttentionEntry::kSinglePrefill: return single_prefill(a, context);
    case AttentionEntry::kSingleDecode: return single_decode(a, context);
    case AttentionEntry::kBatchPrefillPaged: return batch_prefill_paged(a, context);
    case AttentionEntry::kBatchPrefillRagged: return batch_prefill_ragged(a, context);
    case AttentionEntry::kBatchDecode: return batch_decode(a, context);
  }
}

}  // namespace

// entry, then kArguments.
void attention_(PackedArgs args, tvm::ffi::Any*) {
  expect(args, 1 + kNumArguments, "attention");
  const AttentionArgs a = read(args, 1);
  run_entry(parse_entry(args[0]), a, context_of(a.q));
}

bool lengths_on_device(const AttentionArgs& a) {
  if (a.q.device_type == DeviceType::kCpu) return false;
  for (const TensorView* t : {&a.qo_indptr, &a.kv_indptr, &a.last_page_len, &a.seq_lens, &a.mask_indptr})
    if (t->defined() && t->device_type != a.q.device_type) return false;
  return true;
}

namespace {

// From args[first] on: entry, then kArguments. Only index tensors are read, those on a device by run(); q, k, v and out
// lend shapes and dtypes.
Plan planned(const PackedArgs& args, int32_t first, const attention::BatchAttention* beside) {
  const AttentionArgs a = read(args, first + 1);
  const AttentionEntry entry = parse_entry(args[first]);
  auto plan = tvm::ffi::make_object<PlanObject>(context_of(a.q));
  plan->args = a;
  // Tables, masks and slopes are read again by every run; q, k, v, out, lse and workspace are that run's own.
  for (int32_t i : {3, 4, 5, 6, 7, 8, 11, 12, 13, 14})
    if (auto held = args[first + 1 + i].as<tvm::ffi::Tensor>()) plan->kept.push_back(*held);
  if (lengths_on_device(a))
    plan->batch.plan_on_device(a, entry, beside);
  else
    plan->batch.plan(a, entry, beside);
  return Plan(plan);
}

}  // namespace

void attention_plan_(PackedArgs args, tvm::ffi::Any* result) {
  expect(args, 1 + kNumArguments, "attention_plan");
  *result = planned(args, 0, nullptr);
}

// other, then as attention_plan.
void attention_plan_beside_(PackedArgs args, tvm::ffi::Any* result) {
  expect(args, 2 + kNumArguments, "attention_plan_beside");
  *result = planned(args, 1, &args[0].cast<Plan>()->batch);
}
bool attention_runs_beside_(Plan plan) { return plan->batch.runs_beside(); }

// memory: keeps the lists of a plan that is made on a device, so that plans may share a workspace.
void attention_keep_plan_(Plan plan, Tensor memory) { plan->batch.keep_plan_in(view(memory)); }
// Lengths have changed: the next run plans again.
void attention_forget_lengths_(Plan plan) { plan->batch.forget_lengths(); }

void attention_run_(Plan plan, Tensor q, Tensor k, Tensor v, Tensor out, MaybeTensor lse, MaybeTensor sinks,
                    MaybeTensor workspace, double q_scale, double k_scale, double v_scale) {
  AttentionArgs a = plan->args;
  a.q = view(q), a.k = view(k), a.v = view(v), a.out = view(out), a.lse = view(lse), a.workspace = view(workspace);
  split_cache(&a);
  if (sinks.has_value()) a.sinks = view(sinks);
  a.options.q_scale = float(q_scale), a.options.k_scale = float(k_scale), a.options.v_scale = float(v_scale);
  plan->batch.use(context_of(a.q));
  plan->batch.run(a);
}

// plan, q, k, v, out, lse, workspace, q_scale, k_scale, v_scale, above_out, above_lse, num_above.
void attention_run_level_(PackedArgs args, tvm::ffi::Any*) {
  expect(args, 13, "attention_run_level");
  const Plan plan = args[0].cast<Plan>();
  AttentionArgs a = plan->args;
  a.q = tensor(args[1]), a.k = tensor(args[2]), a.v = tensor(args[3]), a.out = tensor(args[4]);
  a.lse = tensor(args[5]), a.workspace = tensor(args[6]);
  split_cache(&a);
  a.options.q_scale = number(args[7]), a.options.k_scale = number(args[8]), a.options.v_scale = number(args[9]);
  const TensorView out = tensor(args[10]), lse = tensor(args[11]), num = tensor(args[12]);
  attention::LevelsAbove above;
  if (out.defined()) {
    if (out.rank != 4 || lse.rank != 3 || out.dtype != DType::kF32 || lse.dtype != DType::kF32)
      fail("attention_run_level", "above", "is no float32 [levels, rows, heads, dim] and [levels, rows, heads]");
    above = {.out = out, .lse = lse, .out_step = out.strides[0] * 4, .lse_step = lse.strides[0] * 4};
    above.count = int32_t(out.shape[0]);
    if (num.defined()) above.num = num.as<const int32_t>();
  }
  plan->batch.use(context_of(a.q));
  plan->batch.run_level(a, above);
}

int64_t attention_workspace_bytes_(Plan plan) { return plan->batch.workspace_bytes(); }
int64_t attention_plan_bytes_(Plan plan) { return plan->batch.plan_bytes(); }
String attention_plan_text_(Plan plan) { return attention::to_string(plan->batch.plan().view()); }

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT_PACKED(
    attention, "entry, " FULMEN_FFI_ATTENTION_ARGUMENTS, 30,
    "softmax attention; entry: batch_attention, single_prefill, single_decode, batch_prefill_paged, "
    "batch_prefill_ragged or batch_decode; kv_layout: NHD or HND; lse_base: e or 2; a cache that is one array "
    "[num_pages, 2, ...] may stand for k and for v, here and in the functions of plans");
FULMEN_FFI_EXPORT_PACKED(attention_plan, "entry, " FULMEN_FFI_ATTENTION_ARGUMENTS, 30,
                         "returns a plan for batches of these lengths; q, k, v and out lend only shapes and dtypes");
FULMEN_FFI_EXPORT_PACKED(attention_plan_beside, "other, entry, " FULMEN_FFI_ATTENTION_ARGUMENTS, 31,
                         "attention_plan for attention_run_beside with the plan `other`");
FULMEN_FFI_EXPORT(attention_runs_beside, "plan", "whether attention_run_beside runs the plan at once with another");
FULMEN_FFI_EXPORT(attention_run, "plan, q, k, v, out, lse, sinks, workspace, q_scale, k_scale, v_scale",
                  "runs a plan; the rest of the arguments is as planned");
FULMEN_FFI_EXPORT_PACKED(
    attention_run_level,
    "plan, q, k, v, out, lse, workspace, q_scale, k_scale, v_scale, above_out, above_lse, num_above", 13,
    "runs a plan as a level of a cascade on a GPU: its results take in those of the levels above, float32 "
    "[levels, rows, heads, dim] and [levels, rows, heads], or None where there are none; num_above: int32 [1], that so "
    "many of them were run, or None");
FULMEN_FFI_EXPORT(
    attention_keep_plan, "plan, memory",
    "gives a plan whose lengths lie on a device memory of attention_plan_bytes for its lists; its workspace "
    "may then be shared by plans that run one after the other");
FULMEN_FFI_EXPORT(attention_forget_lengths, "plan", "lengths on a device have changed: the next run plans again");
FULMEN_FFI_EXPORT(attention_plan_bytes, "plan", "bytes of memory that a plan made on a device needs for its lists");
FULMEN_FFI_EXPORT(attention_workspace_bytes, "plan", "bytes of workspace that running the plan needs");
FULMEN_FFI_EXPORT(attention_plan_text, "plan", "the plan in words: totals, then one line per work item and merge");
