// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_mixed.h"

#include <algorithm>
#include <cmath>

#include "src/cuda/attention.h"

namespace fulmen::cuda {

using attention::AttentionCall, attention::PlanConfig, attention::PlanList, attention::PlanRequest;

namespace {

constexpr double kBytesPerUs = 49e3, kFlopsPerUs = 2.8e6;  // of one SM: what it reads, what it multiplies
constexpr double kLeastUs = 20;                            // of all SMs: less does not pay for two more launches

// The tile for requests of few rows where most of them have so many; 0: none.
int32_t few_tile(const AttentionCall& call, int64_t rows, const Device& device) {
  for (int32_t tile : {16, 32})
    if (rows <= tile && attention_key(tile, call.dims.head_dim_qk, call.dims.head_dim_vo, call.args->q.dtype,
                                      call.args->k.dtype, device.max_shared_bytes, true))
      return tile;
  return 0;
}

// Microseconds of one SM that the requests of each list take, about.
struct KindWork {
  double few = 0, many = 0;
};
KindWork kinds_of(const AttentionCall& call, int64_t few_q) {
  const AttentionArgs& a = *call.args;
  const int64_t group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  const double dims = double(call.dims.head_dim_qk + call.dims.head_dim_vo) * double(call.dims.num_kv_heads);
  const double window = a.options.window_left < 0 ? 1e18 : double(a.options.window_left) + 1;
  KindWork w;
  for (const PlanRequest& r : call.requests) {
    const double rows = double(r.qo_len) * double(group);
    if (rows == 0) continue;
    double keys = double(r.kv_len);
    if (a.options.causal && !a.custom_mask.defined()) keys = std::max(1.0, keys - double(r.qo_len) / 2);
    if (rows <= double(few_q))
      w.few += std::min(keys, window + double(r.qo_len)) * dims * size_of(a.k.dtype) / kBytesPerUs;
    else
      w.many += 2 * rows * std::min(keys, window) * dims / kFlopsPerUs;
  }
  return w;
}

}  // namespace

double many_cost(int64_t kv_bytes) { return 2 / kFlopsPerUs * kBytesPerUs / double(kv_bytes); }

bool configure_mixed(const AttentionCall& call, const Device& device) {
  if (call.args->options.fixed_split_len > 0) return false;  // bits must not depend on the rest of the batch
  const int64_t group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  constexpr int64_t kFewRows = 32;
  int64_t rows = 0;
  for (const PlanRequest& r : call.requests)
    if (r.qo_len * group <= kFewRows) rows = std::max(rows, r.qo_len * group);
  const int32_t few_q = rows == 0 ? 0 : few_tile(call, rows, device);
  if (few_q == 0) return false;
  const KindWork work = kinds_of(call, few_q);
  const double us = (work.few + work.many) / device.num_sms;
  if (work.few == 0 || work.many == 0 || us < kLeastUs) return false;
  // Half of the SMs read as fast as the memory delivers: where requests of few rows want more, it alone is waited for.
  const int32_t few_workers = int32_t(std::ceil(work.few / (0.8 * us)));
  if (few_workers > most_few_workers(device)) return false;
  PlanConfig& c = *call.config;
  c.few_q = few_q;
  const std::vector<PlanRequest> others = requests_of(c, call.requests, PlanList::kMany);
  AttentionCall many = call;
  many.requests = others;
  const batch_attention::Key key = *choose_attention_key(many, device.info());
  set_costs(key, c);
  c.num_workers = device.num_sms * ctas_per_sm(key, device.max_shared_bytes);
  c.few_workers = std::max(1, few_workers);
  return true;
}

bool shape_mixed(const AttentionCall& call, const Device& device, PlanConfig& config) {
  // That requests have beyond one each: fewer are no prefill. Few requests are done before three launches pay.
  constexpr int64_t kLeastRows = 256;
  const int64_t batch = call.dims.batch_size, more = call.dims.total_q - batch;
  if (!call.args->qo_indptr.defined() || call.args->options.fixed_split_len > 0) return false;
  if (batch * call.dims.num_kv_heads < 2 * device.num_sms || more < kLeastRows) return false;
  const int32_t few_q = few_tile(call, call.dims.num_qo_heads / call.dims.num_kv_heads, device);
  if (few_q == 0) return false;
  config.few_q = few_q, config.few_workers = most_few_workers(device);
  return true;
}

bool expects_one_long(const AttentionCall& call) {
  constexpr int64_t kLongRows = 8192;  // packed, that tiles of 256 pay for
  const int64_t batch = call.dims.batch_size, group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  if (!call.args->qo_indptr.defined() || batch < 2) return false;
  return call.dims.total_q < 128 * batch && (call.dims.total_q - batch) * group >= kLongRows;
}

}  // namespace fulmen::cuda
