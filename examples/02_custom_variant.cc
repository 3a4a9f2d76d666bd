// SPDX-License-Identifier: Apache-2.0
// Your own attention in one struct, compiled into the library's CPU kernel from its headers: no fork, no code
// generation.
//
// The variant here is attention with a temperature per head and "local + first keys" visibility: a query sees the last
// `window` keys, and of the older ones only the first `num_first` (attention sinks by position, Xiao et al. 2023).
// Build with -march=native (or any -m flags): the kernel takes the widest instruction set that your flags allow.
#include <fulmen/attention/call.h>
#include <fulmen/cpu/attention.h>
#include <fulmen/runtime/thread_pool.h>

#include <cstdio>
#include <vector>

namespace {

using namespace fulmen;

struct LocalAndFirst : attention::Defaults {
  const float* temperature = nullptr;  // [num_qo_heads]
  float sm_scale = 1;
  int32_t window = 0, num_first = 0;

  bool has_mask() const { return true; }        // ask keep() per key
  bool changes_logits() const { return true; }  // ask logit() per score
  attention::KvRange visible(attention::Row row) const { return {0, attention::causal_end(row)}; }
  bool keep(attention::Row row, int32_t kv_idx) const {
    return kv_idx < num_first || kv_idx >= attention::causal_end(row) - window;
  }
  template <class F, class I>  // F: a register of floats in the kernel, double in the tests' oracle
  F logit(attention::Row row, I, F x) const {
    return x * F(sm_scale / temperature[row.qo_head]);
  }
  float scale_log2() const { return math::kLog2e; }  // logit() returns natural-log units
};

}  // namespace

int main() {
  constexpr int64_t kTokens = 256, kHeads = 4, kKvHeads = 2, kDim = 64;
  std::vector<float> q(kTokens * kHeads * kDim), k(kTokens * kKvHeads * kDim), v(k.size()), out(q.size()),
      lse(kTokens * kHeads);
  for (size_t i = 0; i < q.size(); ++i) q[i] = float(i * 37 % 101) / 50 - 1;
  for (size_t i = 0; i < k.size(); ++i)
    k[i] = float(i * 53 % 97) / 48 - 1, v[i] = float(i % kDim == 0 ? i / (kKvHeads * kDim) : 0);

  AttentionArgs args{.q = view_of(q.data(), {kTokens, kHeads, kDim}),
                     .k = view_of(k.data(), {kTokens, kKvHeads, kDim}),
                     .v = view_of(v.data(), {kTokens, kKvHeads, kDim}),
                     .out = view_of(out.data(), {kTokens, kHeads, kDim}),
                     .lse = view_of(lse.data(), {kTokens, kHeads}),
                     .options = {.causal = true}};  // for the plan: later keys are not even scheduled
  const float temperature[kHeads] = {1, 1, 0.5f, 2};
  LocalAndFirst variant;
  variant.temperature = temperature, variant.sm_scale = 0.125f, variant.window = 32, variant.num_first = 4;

  namespace cpu = fulmen::cpu::FULMEN_CPU_NS;
  const Executor& executor = runtime::default_executor();
  std::vector<attention::PlanRequest> requests;
  const AttentionDims dims = attention::prepare(args, AttentionEntry::kSinglePrefill, requests);  // checks everything
  attention::PlanConfig config = attention::plan_config(args, dims);
  cpu::configure(args, executor.num_threads, config);
  const attention::Plan plan = attention::make_plan(config, requests);
  std::vector<char> workspace(size_t(cpu::attention_workspace_bytes(args, dims, plan.view(), executor.num_threads)));
  cpu::attention(args, dims, plan.view(), variant, workspace.data(), int64_t(workspace.size()), executor);

  // v holds each key's position in its first column: the result is the mean position that a row attends to.
  for (int64_t token : {0, 3, 100, 255})
    std::printf("token %3ld attends to position %.2f on average, lse %.4f\n", long(token),
                double(out[size_t(token * kHeads * kDim)]), double(lse[size_t(token * kHeads)]));
  return 0;
}
