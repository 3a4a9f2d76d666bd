// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/attention_mixed.h"

#include <fulmen/core/math.h>

#include <algorithm>
#include <cmath>

#include "src/cuda/attention.h"
#include "src/cuda/attention_prepare.h"

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

int64_t tiles_of(const std::vector<PlanRequest>& requests, const PlanConfig& c) {
  int64_t tiles = 0;
  for (const PlanRequest& r : requests) tiles += math::ceil_div(int64_t(r.qo_len) * c.group_size(), int64_t(c.tile_q));
  return tiles;
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
  const int32_t share = few_workers_for(work, device);
  if (share > most_few_workers(device)) return false;
  PlanConfig& c = *call.config;
  c.few_q = few_q;
  const std::vector<PlanRequest> others = requests_of(c, call.requests, PlanList::kMany);
  AttentionCall many = call;
  many.requests = others;
  const batch_attention::Key key = *choose_attention_key(many, device.info());
  set_costs(key, c);
  c.num_workers = device.num_sms * ctas_per_sm(key, device.max_shared_bytes);
  const int64_t items = tiles_of(others, c) * c.num_kv_heads;
  c.few_workers = attention_prepare::whole_rounds(share, items, device.num_sms, ctas_on_sm(c, device));
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
  if (rows <= 0 || few_tile(call, rows, device) == 0 || call.beside->dims.total_q < kLeastRows) return false;
  return may_run_beside(call.beside->plan->header);
}

// Keys that a batch's tables have room for.
int64_t most_keys(const AttentionCall& call) {
  const AttentionArgs& a = *call.args;
  if (!call.dims.paged()) return a.k.shape[0];
  if (a.block_tables.defined()) return a.block_tables.shape[0] * a.block_tables.shape[1] * call.dims.page_size;
  return a.kv_indices.defined() ? a.kv_indices.shape[0] * call.dims.page_size : 0;
}

PlanRequest average_request(const AttentionCall& call) {
  const int64_t batch = std::max<int64_t>(1, call.dims.batch_size);
  const int64_t keys = std::min<int64_t>(most_keys(call) / batch, 1 << 30);
  return {0, int32_t(math::ceil_div(call.dims.total_q, batch)), int32_t(keys)};
}

int64_t num_items(const attention::PlanHeader& h) {
  return h.on_device == 0 ? h.num_items : int64_t(h.num_items - h.num_slots) * h.config.num_kv_heads;
}

// How many SMs few rows begin with, 0: one after the other is better. is_known: the work of many rows is.
int32_t beside_workers(const AttentionCall& call, const KindWork& work, bool is_known, const Device& device) {
  const int64_t items = num_items(call.beside->plan->header);
  if (items == 0) return 0;
  // Few keys are read in less time than beginning later costs the others.
  const double read_us = 2 * work.few / device.num_sms;  // half of the SMs read as fast as the memory delivers
  if (read_us < (call.beside->dims.total_q < 1024 ? 40 : 20)) return 0;
  int32_t few_workers = usual_few_workers(device);
  // Where more are wanted memory alone is waited for, and the others are done meanwhile.
  if (is_known) few_workers = std::min(few_workers, few_workers_for(work, device));
  few_workers = attention_prepare::whole_rounds(few_workers, items, device.num_sms, 1);
  // Items that would each have had an SM, and now share some by twos.
  const int64_t sms = device.num_sms, left = sms - few_workers;
  if (items > 2 * left) return few_workers;
  const double lost = double(math::ceil_div(items, left) - math::ceil_div(items, sms)) * work.many / double(items);
  return 2 * read_us < 3 * lost ? 0 : few_workers;
}

// Items for all SMs, since those that run beside the others take what is left once the others are done.
bool set_beside(const AttentionCall& call, int64_t rows, const KindWork& work, bool is_known, const Device& device,
                PlanConfig& c) {
  const int32_t few_workers = beside_workers(call, work, is_known, device);
  if (few_workers == 0) return false;
  c.tile_q = few_tile(call, rows, device);
  c.num_workers = device.num_sms, c.few_workers = few_workers;
  set_costs(planned_attention_key(call, c, device), c);
  return true;
}

}  // namespace

bool may_run_beside(const attention::PlanHeader& plan) { return plan.config.tile_q >= 64; }

int64_t likely_us(const AttentionCall& call, const PlanConfig& config) {
  return std::llround(many_us(average_request(call), config, call.dims) * double(call.dims.batch_size));
}

bool configure_beside(const AttentionCall& call, const Device& device) {
  const int64_t rows = most_rows(call, kFewRows);
  if (rows < most_rows(call, int64_t(1) << 40) || !fit_beside(call, rows, device)) return false;
  const attention::PlanView& other = *call.beside->plan;
  const bool is_known = other.header.on_device == 0;
  KindWork work = kinds_of(call, kFewRows);
  if (!is_known) work.many = double(other.header.total_cost);
  for (const PlanRequest& r : is_known ? other.requests() : std::span<const PlanRequest>())
    work.many += many_us(r, other.header.config, call.beside->dims);
  return set_beside(call, rows, work, is_known, device, *call.config);
}

bool shape_beside(const AttentionCall& call, const Device& device, PlanConfig& config) {
  const AttentionDims& other = call.beside->dims;
  const int64_t batch = call.dims.batch_size, group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  if (batch == 0 || call.dims.total_q == 0) return false;
  const PlanRequest r = average_request(call);
  if (!fit_beside(call, r.qo_len * group, device)) return false;
  // Tables say how many keys there are at most; one request over contiguous keys, how many there are.
  const KindWork work{.few = few_us(r, config, call.dims, size_of(call.args->k.dtype)) * double(batch),
                      .many = double(call.beside->plan->header.total_cost)};
  const bool is_known = call.beside->plan->header.on_device != 0 && other.batch_size == 1 && !other.paged();
  return set_beside(call, r.qo_len * group, work, is_known, device, config);
}

bool expects_one_long(const AttentionCall& call) {
  constexpr int64_t kLongRows = 8192;  // packed, that tiles of 256 pay for
  const int64_t batch = call.dims.batch_size, group = call.dims.num_qo_heads / call.dims.num_kv_heads;
  if (!call.args->qo_indptr.defined() || batch < 2) return false;
  return call.dims.total_q < 128 * batch && (call.dims.total_q - batch) * group >= kLongRows;
}

}  // namespace fulmen::cuda
