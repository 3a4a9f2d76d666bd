// SPDX-License-Identifier: Apache-2.0
#include <fulmen/attention/cascade.h>
#include <fulmen/core/math.h>

#include <algorithm>
#include <cmath>

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
  alignas(kAlign) static char nothing[kAlign];  // what only lends a shape
  char* base = workspace.defined() ? workspace.as<char>() + offset : nothing;
  TensorView t = view_of(reinterpret_cast<float*>(base), shape);
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

// Level i as it is planned and run.
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

// All levels' partial results as merge_states takes them.
TensorView stacked(const TensorView& first, int64_t num_levels, int64_t bytes) {
  TensorView t = insert_axis(first, 1);
  t.shape[1] = num_levels, t.strides[1] = bytes / 4;
  return t;
}

}  // namespace

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
  batches_.clear(), begins_.clear();
  int64_t end = partial_of(levels).bytes();
  for (size_t i = 0; i < levels.size(); ++i) {
    check_level(levels, i);
    AttentionArgs a = level_args(levels, i, workspace);
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
  const TensorView workspace = aligned(given);
  for (size_t i = 0; i < levels.size(); ++i) {
    AttentionArgs a = level_args(levels, i, workspace);
    a.workspace = slice(workspace, begins_[i]);
    batches_[i].run(a);
  }
  const Partial p = partial_of(levels);
  const AttentionArgs first = level_args(levels, 0, workspace);
  merge_states({stacked(first.out, p.num_levels, p.out_bytes()), stacked(first.lse, p.num_levels, p.lse_bytes()), out,
                lse.defined() ? lse : part(first, workspace, p.lse_begin(p.num_levels), {p.rows, p.heads}),
                levels[0].options.lse_base},
               context_);
}

namespace {

// Of one H100; fitted to the sweep in docs/kernels/cascade_cuda.md.
constexpr double kLaunch = 7.5, kTile = 18, kSlot = 4.4, kMerge = 3, kBytesPerUs = 2.7e6, kAgainPerUs = 8.4e6,
                 kFlopsPerUs = 350e6, kWorkers = 264, kMinSplit = 128, kMargin = 1.15;

// A launch.
struct Work {
  double bytes = 0, again = 0, flops = 0;             // again: read before by another request, so that L2 may have them
  double tiles = 0, largest_tile = 0, most_keys = 0;  // of rows; of a request

  // A tile of many rows takes time to begin and to end, and so does merging what its splits leave.
  double us() const {
    const double splits = std::min(kWorkers / std::max(tiles, 1.), most_keys / kMinSplit), part = largest_tile / 128;
    return kLaunch + part * (kTile + (splits >= 2 ? splits * kSlot : 0)) +
           std::max(bytes / kBytesPerUs + again / kAgainPerUs, flops / kFlopsPerUs);
  }
};

// `count` requests of `rows` queries together, each over the same keys.
void add(const CascadeShape& s, double rows, double count, double keys, Work& work) {
  if (rows <= 0 || count <= 0) return;
  const double packed = rows / count * double(s.num_qo_heads) / double(s.num_kv_heads);
  const double heads = double(s.num_kv_heads), row = 2 * double(s.head_dim), once = keys * heads * row;
  const double tile = packed <= 16 ? 16 : packed <= 32 ? 32 : packed <= 64 ? 64 : 128;
  work.bytes += once * double(s.kv_bytes);
  work.again += (count - 1) * once * double(s.kv_bytes);
  work.flops += count * std::ceil(packed / 16) * 16 * once * 2;
  work.tiles += count * std::ceil(packed / tile) * heads;
  work.largest_tile = std::max(work.largest_tile, tile), work.most_keys = std::max(work.most_keys, keys);
}

double flat_us(std::span<const std::span<const PlanRequest>> levels, const CascadeShape& s) {
  double rows = 0, requests = 0, shared = 0;
  for (const PlanRequest& r : levels.back()) rows += double(r.qo_len), requests += r.qo_len > 0;
  Work all;
  for (const std::span<const PlanRequest> level : levels) {
    const bool is_last = level.data() == levels.back().data();
    for (const PlanRequest& r : level)
      add(s, double(r.qo_len), is_last || rows == 0 ? 1 : double(r.qo_len) * requests / rows, double(r.kv_len), all);
    if (!is_last) shared += all.most_keys;
    if (!is_last) all.tiles = all.most_keys = 0;
  }
  all.most_keys += shared;
  return all.us();
}

}  // namespace

double predicted_us(std::span<const std::span<const PlanRequest>> levels, const CascadeShape& s, bool flat) {
  if (levels.empty()) return 0;
  if (flat) return flat_us(levels, s);
  double us = 0, rows = 0;
  for (const PlanRequest& r : levels.back()) rows += double(r.qo_len);
  for (const std::span<const PlanRequest> level : levels) {
    Work own;
    for (const PlanRequest& r : level) add(s, double(r.qo_len), 1, double(r.kv_len), own);
    us += own.us();
  }
  if (levels.size() == 1) return us;
  us += kMerge + rows * double(s.num_qo_heads * s.head_dim) * (4. * double(levels.size()) + 2) / kBytesPerUs;
  return kMargin * us;
}

}  // namespace fulmen::attention
