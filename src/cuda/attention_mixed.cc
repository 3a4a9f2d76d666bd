// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_mixed.h"

#include <fulmen/core/math.h>

#include <algorithm>
#include <cmath>

#include "src/cuda/attention.h"

namespace fulmen::cuda {

using attention::AttentionCall, attention::PlanConfig, attention::PlanList, attention::PlanRequest;

namespace {

constexpr double kBytesPerUs = 49e3, kFlopsPerUs = 2.8e6;  // of one SM: what it reads, what it multiplies
constexpr double kLeastUs = 20;                            // of all SMs: less does not pay for two more launches
constexpr int64_t kFewRows = 32;
// That requests have beyond one each: fewer are no prefill.
constexpr int64_t kLeastRows = 256;

// The tile for requests of few rows where most of them have so many; 0: none.
int32_t few_tile(const AttentionCall& call, int64_t rows, const Device& device) {
  for (int32_t tile : {16, 32})
    if (rows <= tile && attention_key(tile, call.dims.head_dim_qk, call.dims.head_dim_vo, call.args->q.dtype,
                                      call.args->k.dtype, device.max_shared_bytes, true))
      return tile;
  return 0;
}

// Microseconds of one SM that a request takes, about: few rows wait for keys, many multiply.
double few_us(const PlanRequest& r, const PlanConfig& c, const AttentionDims& d, int64_t kv_size) {
  if (r.qo_len == 0) return 0;
  const double window = c.window_left < 0 ? 1e18 : double(c.window_left) + 1;
  double keys = double(r.kv_len);
  if (c.causal) keys = std::max(1.0, keys - double(r.qo_len) / 2);
  const double bytes = double(d.head_dim_qk + d.head_dim_vo) * double(d.num_kv_heads * kv_size);
  return std::min(keys, window + double(r.qo_len)) * bytes / kBytesPerUs;
}
double many_us(const PlanRequest& r, const PlanConfig& c, const AttentionDims& d) {
  const double window = c.window_left < 0 ? 1e18 : double(c.window_left) + 1;
  double keys = double(r.kv_len);
  if (c.causal) keys = std::max(1.0, keys - double(r.qo_len) / 2);
  return 2 * double(r.qo_len * d.num_qo_heads) * std::min(keys, window) * double(d.head_dim_qk + d.head_dim_vo) /
         kFlopsPerUs;
}

// Of a batch: of the requests of each list.
struct KindWork {
  double few = 0, many = 0;
};
KindWork kinds_of(const AttentionCall& call, int64_t few_q) {
  const int64_t group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  KindWork w;
  for (const PlanRequest& r : call.requests)
    if (r.qo_len * group <= few_q)
      w.few += few_us(r, *call.config, call.dims, size_of(call.args->k.dtype));
    else
      w.many += many_us(r, *call.config, call.dims);
  return w;
}

// The most rows of those requests that have no more than `limit`.
int64_t most_rows(const AttentionCall& call, int64_t limit) {
  const int64_t group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  int64_t rows = 0;
  for (const PlanRequest& r : call.requests)
    if (r.qo_len * group <= limit) rows = std::max(rows, r.qo_len * group);
  return rows;
}

// SMs that few rows get of all that work: as many as are done with them a little before the others end.
int32_t few_workers_for(const KindWork& work, const Device& device) {
  return std::max(1, int32_t(std::ceil(work.few / (0.8 * (work.few + work.many) / device.num_sms))));
}

// Where no lengths are known.
int32_t usual_few_workers(const Device& device) { return std::max(1, device.num_sms * 3 / 8); }

}  // namespace

double many_cost(int64_t kv_bytes) { return 2 / kFlopsPerUs * kBytesPerUs / double(kv_bytes); }

bool configure_mixed(const AttentionCall& call, const Device& device) {
  if (call.args->options.fixed_split_len > 0) return false;  // bits must not depend on the rest of the batch
  const int64_t rows = most_rows(call, kFewRows);
  const int32_t few_q = rows == 0 ? 0 : few_tile(call, rows, device);
  if (few_q == 0) return false;
  const KindWork work = kinds_of(call, few_q);
  if (work.few == 0 || work.many == 0 || work.few + work.many < kLeastUs * device.num_sms) return false;
  // Half of the SMs read as fast as the memory delivers: where requests of few rows want more, it alone is waited for.
  const int32_t few_workers = few_workers_for(work, device);
  if (few_workers > most_few_workers(device)) return false;
  PlanConfig& c = *call.config;
  c.few_q = few_q;
  const std::vector<PlanRequest> others = requests_of(c, call.requests, PlanList::kMany);
  AttentionCall many = call;
  many.requests = others;
  const batch_attention::Key key = *choose_attention_key(many, device.info());
  set_costs(key, c);
  c.num_workers = device.num_sms * ctas_per_sm(key, device.max_shared_bytes);
  c.few_workers = few_workers;
  return true;
}

bool shape_mixed(const AttentionCall& call, const Device& device, PlanConfig& config) {
  const int64_t batch = call.dims.batch_size, more = call.dims.total_q - batch;
  if (!call.args->qo_indptr.defined() || call.args->options.fixed_split_len > 0) return false;
  // Few requests are done before three launches pay.
  if (batch * call.dims.num_kv_heads < 2 * device.num_sms || more < kLeastRows) return false;
  const int32_t few_q = few_tile(call, call.dims.num_qo_heads / call.dims.num_kv_heads, device);
  if (few_q == 0) return false;
  config.few_q = few_q, config.few_workers = most_few_workers(device);
  return true;
}

namespace {

// Whether two calls are of the kinds that run beside each other. rows: of this call's requests.
bool fit_beside(const AttentionCall& call, int64_t rows, const Device& device) {
  const PlanConfig& other = call.beside->plan->header.config;
  if (call.args->options.fixed_split_len > 0 || other.fixed_split_len > 0) return false;
  return rows > 0 && few_tile(call, rows, device) > 0 && may_run_beside(call.beside->plan->header);
}

// Items for all SMs, since those that run beside the others take what is left once the others are done.
void set_beside(const AttentionCall& call, int64_t rows, int32_t few_workers, const Device& device, PlanConfig& c) {
  c.tile_q = few_tile(call, rows, device);
  c.num_workers = device.num_sms, c.few_workers = few_workers;
  set_costs(planned_attention_key(call, c, device), c);
}

}  // namespace

bool may_run_beside(const attention::PlanHeader& plan) { return plan.config.tile_q >= 64; }

bool configure_beside(const AttentionCall& call, const Device& device) {
  const int64_t rows = most_rows(call, kFewRows);
  if (rows < most_rows(call, int64_t(1) << 40) || !fit_beside(call, rows, device)) return false;
  const attention::PlanView& other = *call.beside->plan;
  KindWork work = kinds_of(call, kFewRows);
  for (const PlanRequest& r : other.header.on_device != 0 ? std::span<const PlanRequest>() : other.requests())
    work.many += many_us(r, other.header.config, call.beside->dims);
  const bool is_known = other.header.on_device == 0;
  if (work.few == 0 || (is_known && (work.many == 0 || work.few + work.many < kLeastUs * device.num_sms))) return false;
  // Where more than half of the SMs are wanted, memory alone is waited for, and the others are done meanwhile.
  int32_t few_workers = is_known ? few_workers_for(work, device) : usual_few_workers(device);
  if (few_workers > most_few_workers(device)) few_workers = usual_few_workers(device);
  set_beside(call, rows, few_workers, device, *call.config);
  return true;
}

bool shape_beside(const AttentionCall& call, const Device& device, PlanConfig& config) {
  const int64_t batch = call.dims.batch_size, group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  if (batch == 0 || call.dims.total_q == 0) return false;
  const int64_t rows = math::ceil_div(call.dims.total_q, batch) * group;
  if (!fit_beside(call, rows, device)) return false;
  if (batch * call.dims.num_kv_heads < 2 * device.num_sms) return false;  // as in shape_mixed
  if (call.beside->dims.total_q < kLeastRows) return false;
  set_beside(call, rows, usual_few_workers(device), device, config);
  return true;
}

bool expects_one_long(const AttentionCall& call) {
  constexpr int64_t kLongRows = 8192;  // packed, that tiles of 256 pay for
  const int64_t batch = call.dims.batch_size, group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  if (!call.args->qo_indptr.defined() || batch < 2) return false;
  return call.dims.total_q < 128 * batch && (call.dims.total_q - batch) * group >= kLongRows;
}

}  // namespace fulmen::cuda
