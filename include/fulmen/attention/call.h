// SPDX-License-Identifier: Apache-2.0
// Between the attention op and its kernels: lengths read from index tensors, one canonical form of the arguments, the
// built-in variant they ask for, and what a backend's row is launched with.
#pragma once
#include <fulmen/attention/plan.h>
#include <fulmen/attention/variants.h>
#include <fulmen/ops/attention.h>

namespace fulmen::attention {

// The same call with k and v in NHD (strides permuted, nothing moved) and q, out and lse with a row axis.
AttentionArgs canonical(const AttentionArgs& args, AttentionEntry entry = AttentionEntry::kBatchAttention);

// Where each request's rows begin, and its lengths. Reads host index tensors and checks every number in them; errors
// name the tensor, the request and the position. args: canonical.
std::vector<PlanRequest> requests_of(const AttentionArgs& args, const AttentionDims& dims,
                                     AttentionEntry entry = AttentionEntry::kBatchAttention);

// check() and requests_of() in one; args becomes canonical. Tables in a device's memory are copied to the host first,
// which waits for the context's stream; page ids are not, so that theirs go unchecked.
AttentionDims prepare(AttentionArgs& args, AttentionEntry entry, std::vector<PlanRequest>& requests,
                      const Context& context = {});

// The scale on q·k that the options ask for.
inline float logit_scale(const AttentionOptions& o, int64_t head_dim_qk) {
  const bool given = o.sm_scale == o.sm_scale && o.sm_scale != 0;
  return (given ? o.sm_scale : float(1 / __builtin_sqrt(double(head_dim_qk)))) * o.q_scale * o.k_scale;
}

// The window as kernels take it: one that nothing can lie before is none, so that no position minus it overflows.
inline int32_t window_of(const AttentionOptions& o) {
  constexpr int32_t kLongest = 0x7fffffff - (1 << 24);
  return o.window_left > kLongest ? -1 : o.window_left;
}

inline Standard standard_variant(const AttentionArgs& args) {
  Standard s;
  s.sm_scale = logit_scale(args.options, args.q.shape[2]);
  s.logits_soft_cap = args.options.logits_soft_cap;
  s.window_left = window_of(args.options);
  s.causal = args.options.causal;
  if (args.alibi_slopes.defined()) s.alibi_slopes = args.alibi_slopes.as<const float>();
  if (args.sinks.defined()) s.sinks = args.sinks.as<const float>();
  if (args.custom_mask.defined()) {
    s.custom_mask = args.custom_mask.as<const uint8_t>();
    if (args.mask_indptr.defined()) s.mask_indptr = args.mask_indptr.as<const int32_t>();
  }
  return s;
}

// A variant of the user's as text, compiled at run time for the call's device: C++ that defines a struct called `name`,
// derived from attention::Defaults (attention/variant.h is included before it), trivially copyable; it may begin with
// lines of #include <fulmen/attention/...>, all else is put into namespace fulmen::attention. fields: the
// struct's bytes; pointers in it are the device's. The plan knows nothing of it: options.causal and window_left may say
// what its visible() never leaves, so that keys that no row sees are not walked.
struct VariantCode {
  std::string name, text;
  const void* fields = nullptr;
  int64_t num_bytes = 0;
};

// Where a plan that is made on the device was last made, so that it is not made again for every layer.
struct MadePlan {
  const void* workspace = nullptr;  // null: nowhere
  uint64_t capture = 0;             // of the stream capture that recorded it, 0: none did
  bool was_captured = false;        // a graph's replays make plans here that nobody told of
  TensorView
      memory;  // keeps the plan's lists, so that the rest of the workspace may be shared; absent: in the workspace
};

// A call that is a level of a cascade: what levels above left of the same rows, which its own results take in. Only for
// backends with a row "choose_cascade" (cascade_choice.h).
struct LevelsAbove {
  TensorView out, lse;  // of the first level, f32 and contiguous; the others' follow, so many bytes apart
  int64_t out_step = 0, lse_step = 0;
  int32_t count = 0;
  const int32_t* num = nullptr;  // on the device: count, or 0 in a run without levels above; null: count
};

// What every backend's "attention" row is launched with, in one of its steps. A row that plans on its device takes
// kShape, from which it says how much the plan may hold; its kRun then makes the plan before it runs. Others refuse it.
struct AttentionCall {
  enum Step : int32_t { kConfigure, kShape, kMeasure, kUpload, kRun } step = kRun;
  const AttentionArgs* args = nullptr;  // canonical and checked
  AttentionDims dims{};
  std::span<const PlanRequest> requests;  // kConfigure
  PlanConfig* config = nullptr;           // kConfigure: the row sets num_workers, tile sizes and costs
  PlanHeader* header = nullptr;           // kShape: the row sets all but the options in config
  const PlanView* plan = nullptr;         // kMeasure, kUpload, kRun
  MadePlan* made = nullptr;               // kRun: the row makes the plan where this does not say that it did
  const VariantCode* variant = nullptr;   // kRun, and prepare; null: what the options ask for
  // kConfigure, kShape: a planned call, of which dims and plan are set, that this one may be planned to run beside: the
  // row then sets few_workers. kRun, of such a plan: that call, in its step kRun; the row runs both.
  const AttentionCall* beside = nullptr;
  const LevelsAbove* above = nullptr;   // kRun; null: no cascade
  bool resident = false;                // kRun: kUpload has put this plan into this workspace
  mutable int64_t workspace_bytes = 0;  // kMeasure: set by the row; kUpload, kRun: the size of workspace
  mutable int64_t plan_bytes = 0;       // kMeasure: what of it the lists of a plan made on the device take
  void* workspace = nullptr;            // kUpload, kRun; any alignment, any contents; null: a device's row allocates
};

// The plan's share of the call: what the options and the head counts say. The backend's row completes it.
PlanConfig plan_config(const AttentionArgs& args, const AttentionDims& dims);

// Arguments for planning before there are tensors: q, k, v and out get shapes and no memory. given: index tensors, mask
// and options. total_q and the head counts are the caller's; page_size 0 means ragged.
struct AttentionShape {
  int64_t total_q = 0, num_qo_heads = 1, num_kv_heads = 1, head_dim_qk = 64, head_dim_vo = 64, page_size = 0;
};
AttentionArgs placeholder(const AttentionArgs& given, const AttentionShape& shape, AttentionEntry entry);

// One planned call; what BatchAttention::run does. workspace_bytes_of: what it needs under this plan.
struct PlannedRun {
  bool resident = false;                 // the workspace holds the plan
  MadePlan* made = nullptr;              // of a plan that is made on the device; null: make it
  const VariantCode* variant = nullptr;  // null: what the options ask for
  const LevelsAbove* above = nullptr;    // null: no cascade
};
void run_planned(const PlanView& plan, const AttentionArgs& args, AttentionEntry entry, const Context& context = {},
                 const PlannedRun& how = {});
int64_t workspace_bytes_of(const PlanView& plan, const AttentionArgs& args, AttentionEntry entry,
                           const Context& context = {});

// One call with a variant given as text: planned and run.
void run_variant(const AttentionArgs& args, const VariantCode& variant, const Context& context = {});

// A batch shape planned once and run many times, layer after layer. run() allocates nothing.
// Lengths in host memory: plan() reads them, on whatever device the rest is.
//   BatchAttention batch;
//   batch.plan(args);                  // any tensors of the right shapes and dtypes; only index tensors are read
//   args.workspace = batch.workspace_bytes() bytes;
//   batch.run(args);                   // tables and lengths as planned, else an error; K, V, Q and page ids may change
// On a device, plan() may be given a workspace of workspace_bytes(): the plan is then uploaded once, that workspace
// belongs to it until the next plan(), and run() with it launches one kernel, or three where the plan has two lists,
// and can be captured in a graph; the graph's replays follow a later plan() of as many requests and the same tile_q and
// few_q into the same workspace. With any other workspace each run() uploads. Index tensors that only say lengths may
// be host memory for plan(). run() trusts tables in a device's memory to be as planned.
class BatchAttention {
 public:
  explicit BatchAttention(const Context& context = {}) : context_(context) {}
  // beside: a planned batch of other tensors that run_beside() will be given.
  void plan(const AttentionArgs& args, AttentionEntry entry = AttentionEntry::kBatchAttention,
            const BatchAttention* beside = nullptr);
  // Lengths in a device's memory: nothing is read, copied or waited for. The first run() after this launches the kernel
  // that plans, and so does the first one that each stream capture records, once for all layers: a captured graph may
  // be replayed with any lengths and page tables, and fewer rows or requests (of length 0), that lie in the same
  // tensors. The workspace, of workspace_bytes(), belongs to the plan, unless memory of plan_bytes() is given that
  // does: then plans whose runs do not overlap may share one. Lengths that the tensors have no room for are cut. Throws
  // kUnsupported where the device's backend plans on the host only. Not to be run by several threads at once.
  void plan_on_device(const AttentionArgs& args, AttentionEntry entry = AttentionEntry::kBatchAttention,
                      const BatchAttention* beside = nullptr);
  void keep_plan_in(const TensorView& memory);          // after plan_on_device()
  void forget_lengths() { made_.workspace = nullptr; }  // the next run() plans again
  int64_t plan_bytes() const { return plan_bytes_; }
  void use(const Context& context) { context_ = context; }  // for run()
  // A plan that was saved, or made for more workers than this process has; must be of the same lengths and options.
  void set_plan(const Plan& plan, const AttentionArgs& args, AttentionEntry entry = AttentionEntry::kBatchAttention);
  const Plan& plan() const { return plan_; }
  // Exactly what run() uses under this plan, and the most that any plan with no larger tiles and, with RoPE, no longer
  // kv_len can use: a closed form of the workers, not of the batch (on a device, plus the plan of this batch itself).
  int64_t workspace_bytes() const { return workspace_bytes_; }
  int64_t max_workspace_bytes() const { return max_workspace_bytes_; }
  // variant: as in run_variant.
  void run(const AttentionArgs& args, const VariantCode* variant = nullptr) const;
  void run_level(const AttentionArgs& args, const LevelsAbove& above) const;
  // Runs two batches, each with tensors, options and a workspace of its own, in any order. Where this one has few rows
  // per request (decode), the other many (prefill), this was planned beside such a batch and that pays on the device,
  // they run at once, if both are on one device and stream and neither writes memory of the other's; else the other
  // comes first. Results are those of the two runs.
  void run_beside(const AttentionArgs& args, const BatchAttention& other, const AttentionArgs& other_args,
                  const VariantCode* variant = nullptr, const VariantCode* other_variant = nullptr) const;
  bool runs_beside() const { return runs_beside_; }  // whether the plan is for that

 private:
  void adopt(const AttentionArgs& args, AttentionEntry entry, const Plan* saved, const BatchAttention* beside);
  PlannedRun as_planned(const AttentionArgs& args, const VariantCode* variant) const;

  Context context_;
  AttentionEntry entry_ = AttentionEntry::kBatchAttention;
  Plan plan_;
  AttentionDims dims_{};  // of the call that was planned
  bool runs_beside_ = false;
  const void* uploaded_to_ = nullptr;  // the workspace that holds this plan
  int64_t workspace_bytes_ = 0, max_workspace_bytes_ = 0, plan_bytes_ = 0;
  mutable MadePlan made_;
};

}  // namespace fulmen::attention
