// SPDX-License-Identifier: Apache-2.0
// What planning costs: K rows time the kernel that plans on the device, H rows the calling thread.
#include <fulmen/attention/call.h>

#include <random>

#include "src/cuda/attention_lists.h"
#include "src/cuda/attention_plan.h"
#include "tools/gpu/pool.h"
#include "tools/gpu/suite.h"

namespace fulmen::gpu {
namespace {

using attention::AttentionCall;

struct Shape {
  int32_t batch = 1, qo_len = 1, kv_len = 1024;  // kv lengths are random, up to this
  int64_t num_qo_heads = 64, num_kv_heads = 8;
  bool uniform = true;  // no qo_indptr
};

struct Planned {
  AttentionPool pool;
  AttentionArgs args;
  AttentionDims dims;
  attention::PlanView plan;
  int64_t workspace_bytes = 0;
  attention::BatchAttention batch;
};

std::shared_ptr<Planned> planned(const Shape& s) {
  constexpr int32_t kPage = 16;
  auto p = std::make_shared<Planned>();
  std::mt19937 rng(3);
  std::vector<int32_t> qo = {0}, kv = {0}, last, lens;
  for (int32_t b = 0; b < s.batch; ++b) {
    const int32_t len = std::uniform_int_distribution<int32_t>(s.kv_len / 2, s.kv_len)(rng);
    qo.push_back(qo.back() + s.qo_len), kv.push_back(kv.back() + (len + kPage - 1) / kPage);
    last.push_back((len - 1) % kPage + 1), lens.push_back(len);
  }
  AttentionArgs& a = p->args;
  const int64_t heads = s.num_kv_heads, pages = 4096;
  std::vector<int32_t> ids(size_t(kv.back()));
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = int32_t(i % size_t(pages));
  a.q = p->pool.random(DType::kBF16, {qo.back(), s.num_qo_heads, 128});
  a.out = p->pool.tensor(DType::kBF16, {qo.back(), s.num_qo_heads, 128});
  a.k = p->pool.random(DType::kBF16, {pages, kPage, heads, 128});
  a.v = p->pool.random(DType::kBF16, {pages, kPage, heads, 128});
  a.kv_indptr = p->pool.ids(kv), a.kv_indices = p->pool.ids(ids), a.last_page_len = p->pool.ids(last);
  if (!s.uniform) a.qo_indptr = p->pool.ids(qo);
  a.options.causal = s.qo_len > 1;
  p->dims = {s.batch, qo.back(), s.num_qo_heads, heads, 128, 128, kPage};
  p->batch.plan_on_device(a);
  p->workspace_bytes = p->batch.workspace_bytes();
  a.workspace = p->pool.tensor(DType::kU8, {p->workspace_bytes});
  p->plan = p->batch.plan().view();
  return p;
}

Row prepare_row(const char* id, const std::string& shape, const Shape& s) {
  const std::string workspace = "; workspace " + std::to_string(planned(s)->workspace_bytes) + " bytes";
  return {id, "plan on the device, " + shape + workspace, [s] {
            const auto p = planned(s);
            return Problem{.launch = [p](int32_t, const Context& context) {
              AttentionCall call;
              call.args = &p->args, call.dims = p->dims, call.plan = &p->plan;
              cuda::AttentionLists lists(call, cuda::device(0));
              lists.place(cuda::aligned(p->args.workspace.data), nullptr);
              lists.for_lists([&](const AttentionCall& part, const cuda::LaunchList& list) {
                cuda::launch_planner(part, list.key, list.place, list.rows, cuda::device(0), context);
              });
            }};
          }};
}

Row host_row(const char* id, const std::string& shape, const Shape& s, bool plans) {
  return {id, "host time, " + shape, [s, plans] {
            const auto p = planned(s);
            const auto made = std::make_shared<attention::MadePlan>();
            return Problem{.host = true, .launch = [p, made, plans](int32_t, const Context& context) {
                             if (plans) *made = {};
                             attention::run_planned(p->plan, p->args, AttentionEntry::kBatchAttention, context,
                                                    {.made = made.get()});
                           }};
          }};
}

}  // namespace

std::vector<Row> plan_suite() {
  std::vector<Row> rows;
  const auto add = [&](const char* id, const char* shape, const Shape& s) {
    rows.push_back(prepare_row(id, shape, s));
  };
  add("K1", "decode 64/8 B1 kv1k", {.batch = 1});
  add("K2", "decode 64/8 B1 kv128k", {.batch = 1, .kv_len = 131072});
  add("K3", "decode 64/8 B64 kv8k", {.batch = 64, .kv_len = 8192});
  add("K4", "decode 64/8 B256 kv8k", {.batch = 256, .kv_len = 8192});
  add("K5", "decode 64/8 B1024 kv1k", {.batch = 1024});
  add("K6", "decode 64/8 B1024 kv1k with qo_indptr", {.batch = 1024, .uniform = false});
  add("K7", "decode 64/8 B8192 kv1k", {.batch = 8192});
  add("K8", "decode 64/8 B65536 kv128", {.batch = 65536, .kv_len = 128});
  add("K9", "append 64/8 B16 q512 kv8k", {.batch = 16, .qo_len = 512, .kv_len = 8192, .uniform = false});
  rows.push_back(host_row("H1", "run() of a planned decode 64/8 B4 kv128", {.batch = 4, .kv_len = 128}, false));
  rows.push_back(host_row("H2", "plan and run of a decode 64/8 B4 kv128", {.batch = 4, .kv_len = 128}, true));
  return rows;
}

}  // namespace fulmen::gpu
