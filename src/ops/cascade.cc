// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/cascade.h>
#include <fulmen/attention/cascade_choice.h>
#include <fulmen/core/math.h>
#include <fulmen/runtime/registry.h>

#include <algorithm>
#include <cmath>

#include "src/ops/host_lengths.h"

namespace fulmen::attention {
namespace {

constexpr int64_t kAlign = 256;
constexpr const char* kName = "cascade";

std::string level_name(size_t i) { return "level " + std::to_string(i); }

void check_level(std::span<const AttentionArgs> levels, size_t i) {
  if (levels[i].options.lse_base != levels[0].options.lse_base)
    fail(kName, level_name(i), "has another lse_base than level 0");
  if (levels[i].sinks.defined() && i > 0)
    fail(kName, level_name(i), "has sinks, which count once: give them to level 0");
}

int64_t aligned(int64_t bytes) { return math::ceil_div(bytes, kAlign) * kAlign; }

// f32 at `offset` of a workspace of q's device; of no memory where there is none yet.
TensorView part(const AttentionArgs& a, const TensorView& workspace, int64_t offset,
                std::initializer_list<int64_t> shape) {
  void* at = workspace.defined() ? workspace.as<char>() + offset : no_memory();
  TensorView t = view_of(static_cast<float*>(at), shape);
  t.device_type = a.q.device_type, t.device_id = a.q.device_id;
  return t;
}

struct Partial {
  int64_t rows, heads, dim, num_levels;
  int64_t out_bytes() const { return aligned(rows * heads * dim * 4); }
  int64_t lse_bytes() const { return aligned(rows * heads * 4); }
  int64_t lse_begin(int64_t i) const { return num_levels * out_bytes() + i * lse_bytes(); }  // last: the result's
  int64_t bytes() const { return lse_begin(num_levels + 1); }
};

Partial partial_of(std::span<const AttentionArgs> levels) {
  const AttentionArgs& a = levels[0];
  if (a.q.rank != 3 || a.v.rank < 3) fail(kName, "q", "has rank " + std::to_string(a.q.rank) + ", expected 3");
  return {a.q.shape[0], a.q.shape[1], a.v.shape[a.v.rank - 1], int64_t(levels.size())};
}

// Level i as it is planned and run; the last one's result is the cascade's where levels merge in attention.
AttentionArgs level_args(std::span<const AttentionArgs> levels, size_t i, const TensorView& workspace) {
  const Partial p = partial_of(levels);
  AttentionArgs a = levels[i];
  a.out = part(a, workspace, int64_t(i) * p.out_bytes(), {p.rows, p.heads, p.dim});
  a.lse = part(a, workspace, p.lse_begin(int64_t(i)), {p.rows, p.heads});
  a.workspace = {};
  return a;
}

TensorView slice(const TensorView& workspace, int64_t begin) {
  TensorView t = workspace;
  t.data = workspace.as<char>() + begin, t.shape[0] -= begin;
  return t;
}
TensorView aligned(const TensorView& workspace) {
  const uint64_t at = reinterpret_cast<uint64_t>(workspace.data);
  return slice(workspace, std::min(workspace.shape[0], int64_t((kAlign - at % kAlign) % kAlign)));
}

// What the device writes where it chooses, behind one another; begin becomes their end.
CascadeChoice choice_at(std::span<const AttentionArgs> levels, const TensorView& workspace, int64_t& begin) {
  const AttentionArgs own = canonical(levels.back());
  CascadeChoice c{.shape = {own.q.shape[1], own.k.shape[2], own.q.shape[2], size_of(own.k.dtype)},
                  .total_q = own.q.shape[0],
                  .page_size = own.k.shape[1],
                  .causal = own.options.causal};
  const auto take = [&](DType dtype, int64_t n) {
    TensorView x = part(levels[0], workspace, begin, {n});
    x.dtype = dtype;
    begin += aligned(n * size_of(dtype));
    return x;
  };
  for (const AttentionArgs& a : levels) {
    c.levels.push_back({a.qo_indptr, a.kv_indptr, a.kv_indices, a.last_page_len, {}});
    if (&a != &levels.back()) c.levels.back().rows = take(DType::kI32, a.qo_indptr.shape[0]);
  }
  const int64_t batch = own.qo_indptr.shape[0] - 1;
  c.kv_indptr = take(DType::kI32, batch + 1), c.last_page_len = take(DType::kI32, batch);
  c.page_ids = take(DType::kI32, num_joined_ids(c.levels)), c.num_above = take(DType::kI32, 1);
  return c;
}

// Level i with the tables that were chosen.
AttentionArgs with_tables(AttentionArgs a, const CascadeChoice& c, size_t i) {
  if (i + 1 < c.levels.size())
    a.qo_indptr = c.levels[i].rows;
  else
    a.kv_indptr = c.kv_indptr, a.kv_indices = c.page_ids, a.last_page_len = c.last_page_len;
  return a;
}

bool is_plain(const AttentionArgs& a) {
  const AttentionOptions& o = a.options;
  const bool has_tables = a.qo_indptr.defined() && a.kv_indptr.defined() && a.kv_indices.defined() &&
                          a.last_page_len.defined() && !a.block_tables.defined() && !a.seq_lens.defined();
  return has_tables && a.qo_indptr.shape[0] > 0 && a.kv_indices.shape[0] < int64_t(1) << 31 && a.k.rank == 4 &&
         !a.custom_mask.defined() && !a.alibi_slopes.defined() && !a.sinks.defined() && o.window_left < 0 &&
         o.rope_theta <= 0 && o.fixed_split_len <= 0;
}

// Whether one flat pass may do what the levels do: the same cache, scales and options, nothing that asks where in its
// level a key is, and no promise that bits are a function of the request alone.
bool may_be_flat(std::span<const AttentionArgs> levels) {
  if (levels.size() < 2 || levels.size() > size_t(kMostCascadeLevels)) return false;
  const AttentionArgs& own = levels.back();
  for (const AttentionArgs& a : levels) {
    const AttentionOptions &o = a.options, &with = own.options;
    if (!is_plain(a) || (o.causal && &a != &own)) return false;
    if (a.k.data != own.k.data || a.v.data != own.v.data || o.kv_layout != with.kv_layout) return false;
    if (logit_scale(o, 64) != logit_scale(with, 64) || o.logits_soft_cap != with.logits_soft_cap) return false;
    if (o.v_scale != with.v_scale || o.disable_split != with.disable_split) return false;
  }
  return chooses_cascades(own.q.device_type, own.q.device_id);
}

// The result as attention's out: of the right shape, and apart from what the levels read. Lengths are not looked at: a
// graph may be recorded, and they are the plans'.
void check_result(std::span<const AttentionArgs> levels, const TensorView& out, const TensorView& lse) {
  for (AttentionArgs a : levels) {
    a.out = out, a.lse = lse, a.workspace = {};
    attention::checked(a, AttentionEntry::kBatchAttention);
  }
}

// All levels' partial results as merge_states takes them.
TensorView stacked(const TensorView& first, int64_t num_levels, int64_t bytes) {
  TensorView t = insert_axis(first, 1);
  t.shape[1] = num_levels, t.strides[1] = bytes / 4;
  return t;
}

runtime::OpHandle choose_handle() {
  static const runtime::OpHandle kOp = runtime::op_handle("choose_cascade");
  return kOp;
}

}  // namespace

void choose_cascade(const CascadeChoice& choice, const Context& context) {
  runtime::launch(choose_handle(), choice.num_above, &choice, context);
}
bool chooses_cascades(DeviceType type, int32_t device_id) {
  return runtime::choose(choose_handle(), type, device_id, nullptr, {}).row != nullptr;
}

void cascade(std::span<const AttentionArgs> levels, const Context& context) {
  for (size_t i = 0; i < levels.size(); ++i) {
    if (!levels[i].lse.defined() && levels.size() > 1) fail(kName, level_name(i), "has no lse, which the merge needs");
    check_level(levels, i);
    if (levels[i].out.dtype != levels[0].out.dtype) fail(kName, level_name(i), "has another out dtype than level 0");
    check(levels[i]);  // before anything is written
  }
  for (const AttentionArgs& level : levels) batch_attention(level, context);
  for (size_t i = 1; i < levels.size(); ++i)
    merge_state_in_place(levels[0].out, levels[0].lse, levels[i].out, levels[i].lse, {}, levels[0].options.lse_base,
                         context);
}

void BatchCascade::make(std::span<const AttentionArgs> levels, const TensorView& workspace, bool on_device) {
  if (levels.empty()) fail(kName, "levels", "are none, expected one or more");
  batches_.clear(), begins_.clear(), chosen_ = {};
  int64_t end = partial_of(levels).bytes();
  for (size_t i = 0; i < levels.size(); ++i) check_level(levels, i);
  const bool chooses = on_device && may_be_flat(levels);
  CascadeChoice choice;
  tables_ = chooses ? end : -1;
  if (chooses) choice = choice_at(levels, {}, end);
  for (size_t i = 0; i < levels.size(); ++i) {
    AttentionArgs a = level_args(levels, i, workspace);
    if (chooses) a = with_tables(a, choice, i);
    BatchAttention& batch = batches_.emplace_back(context_);
    on_device ? batch.plan_on_device(a) : batch.plan(a);
    begins_.push_back(end);
    if (workspace.defined() && end + batch.workspace_bytes() <= workspace.num_elements()) {
      a.workspace = slice(workspace, end);
      batch.plan(a);  // into its place
    }
    end += aligned(batch.workspace_bytes());
  }
  workspace_bytes_ = end + kAlign;
}

void BatchCascade::plan(std::span<const AttentionArgs> levels, const TensorView& workspace) {
  make(levels, workspace.defined() ? aligned(workspace) : workspace, false);
}
void BatchCascade::plan_on_device(std::span<const AttentionArgs> levels) { make(levels, {}, true); }
void BatchCascade::forget_lengths() {
  for (BatchAttention& batch : batches_) batch.forget_lengths();
  chosen_.workspace = nullptr;
}

void BatchCascade::use(const Context& context) {
  context_ = context;
  for (BatchAttention& batch : batches_) batch.use(context);
}

void BatchCascade::run(std::span<const AttentionArgs> levels, const TensorView& out, const TensorView& lse,
                       const TensorView& given) const {
  require(int64_t(levels.size()) == int64_t(batches_.size()), kName, "the number of levels", int64_t(levels.size()),
          std::to_string(batches_.size()) + ", as planned");
  require(given.num_elements() >= workspace_bytes_, kName, "workspace", given.num_elements(),
          std::to_string(workspace_bytes_) + " bytes or more");
  check_result(levels, out, lse);
  const TensorView workspace = aligned(given);
  const bool chooses = tables_ >= 0;
  CascadeChoice choice;
  if (chooses) {
    int64_t at = tables_;
    choice = choice_at(levels, workspace, at), choice.made = &chosen_;
    choose_cascade(choice, context_);
  }
  const Partial p = partial_of(levels);
  const AttentionArgs first = level_args(levels, 0, workspace);
  const bool merges = chooses_cascades(first.q.device_type, first.q.device_id);  // in the last level's launch
  LevelsAbove above{.out = first.out, .lse = first.lse, .out_step = p.out_bytes(), .lse_step = p.lse_bytes()};
  for (size_t i = 0; i < levels.size(); ++i) {
    AttentionArgs a = level_args(levels, i, workspace);
    if (chooses) a = with_tables(a, choice, i);
    a.workspace = slice(workspace, begins_[i]);
    if (!merges) {
      batches_[i].run(a);
      continue;
    }
    if (i + 1 == levels.size()) {
      a.out = out, a.lse = lse, above.count = int32_t(i);
      if (chooses) above.num = choice.num_above.as<int32_t>();
    }
    batches_[i].run_level(a, above);
  }
  if (merges) return;
  merge_states({stacked(first.out, p.num_levels, p.out_bytes()), stacked(first.lse, p.num_levels, p.lse_bytes()), out,
                lse.defined() ? lse : part(first, workspace, p.lse_begin(p.num_levels), {p.rows, p.heads}),
                levels[0].options.lse_base},
               context_);
}

double predicted_us(std::span<const std::span<const PlanRequest>> levels, const CascadeShape& shape, bool flat) {
  if (levels.empty()) return 0;
  std::vector<LevelSums<double>> sums;
  for (const std::span<const PlanRequest> level : levels) {
    LevelSums<double>& of_level = sums.emplace_back();
    for (const PlanRequest& r : level)
      if (r.qo_len > 0) of_level.add(shape, double(r.qo_len), double(r.kv_len));
  }
  const CascadeModel<double> model{shape};
  const int32_t n = int32_t(sums.size());
  constexpr int32_t kAny = 1 << 30;
  return flat ? model.flat_us<kAny>(sums.data(), n, sums.back()) : model.levels_us<kAny>(sums.data(), n, sums.back());
}

}  // namespace fulmen::attention
