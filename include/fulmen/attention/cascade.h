// SPDX-License-Identifier: Apache-2.0
// Attention over a cache that is shared in levels: a prefix of all requests, prefixes of groups, each request's own
// keys. Every level is one attention call with its own tables, in which a row of queries sees that level's keys only;
// their results merge. A shared prefix is read once per level instead of once per request.
//
//   shared-prefix decode:  level 0: one request of batch_size rows over the prefix   (qo_indptr {0, B}, not causal)
//                          level 1: batch_size requests of one row over their own pages
//   shared-prefix prefill: the same with longer rows, causal in the last level only
//
// Levels are launches of their own, since their tiles differ: hundreds of rows above, a few below; on a GPU the last
// one takes in the others' results (docs/decisions/cascade_in_launches.md).
#pragma once
#include <fulmen/attention/call.h>
#include <fulmen/attention/cascade_model.h>
#include <fulmen/ops/merge_state.h>

#include <span>

namespace fulmen::attention {

// Each level brings its own out and lse, of the same shape and base; the result is left in the first level's.
// Give f32 outs to round once, at the end.
void cascade(std::span<const AttentionArgs> levels, const Context& context = {});

// The same planned once and run many times, with partial results in f32 in the workspace. Levels share q, k, v and
// lse_base; out and lse are the result's, of any one level; the rest of each is as in BatchAttention, whose rules hold:
//   BatchCascade cascade;
//   cascade.plan_on_device(levels);          // or plan(): lengths in host memory
//   workspace of cascade.workspace_bytes();
//   cascade.run(levels, out, lse, workspace);   // per layer; lse optional
// Planned on the device, it may be run flat: one pass over each request's keys of all levels, where the same prediction
// as predicted_us, made on the device each time that lengths are planned with, says so, and its result is that of the
// levels (docs/kernels/cascade_cuda.md).
class BatchCascade {
 public:
  explicit BatchCascade(const Context& context = {}) : context_(context) {}
  // With a workspace, which then belongs to this plan, a run on a device uploads nothing.
  void plan(std::span<const AttentionArgs> levels, const TensorView& workspace = {});
  void plan_on_device(std::span<const AttentionArgs> levels);
  void forget_lengths();  // after plan_on_device(): the next run() plans again
  int64_t workspace_bytes() const { return workspace_bytes_; }
  void use(const Context& context);  // for run()
  void run(std::span<const AttentionArgs> levels, const TensorView& out, const TensorView& lse,
           const TensorView& workspace) const;

 private:
  void make(std::span<const AttentionArgs> levels, const TensorView& workspace, bool on_device);

  Context context_;
  std::vector<BatchAttention> batches_;
  std::vector<int64_t> begins_;  // of each level's workspace, behind the partial results
  int64_t tables_ = -1;          // of what the device writes where it chooses; -1: levels always
  mutable MadePlan chosen_;
  int64_t workspace_bytes_ = 0;
};

// What a GPU is predicted to take for levels, with a margin, or flat: for the same requests with a table of all their
// keys each. In microseconds of an H100; between the two it is the ratio that counts. docs/kernels/cascade_cuda.md has
// the model.
double predicted_us(std::span<const std::span<const PlanRequest>> levels, const CascadeShape& shape, bool flat);

}  // namespace fulmen::attention
