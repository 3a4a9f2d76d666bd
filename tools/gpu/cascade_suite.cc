// SPDX-License-Identifier: Apache-2.0
// C rows: decode over a prefix that all requests share, in levels, flat (one pass over everybody's keys), in the form
// that the device chooses, and flat with a plan of the device's.
#include <fulmen/attention/cascade.h>

#include <algorithm>

#include "tools/gpu/pool.h"
#include "tools/gpu/suite.h"

namespace fulmen::gpu {
namespace {

struct Shared {
  int32_t batch = 256, prefix = 32768, suffix = 256, num_qo_heads = 32, num_kv_heads = 32;
};
constexpr int32_t kPage = 16, kDim = 128;

// Page tables of requests: pages [begins[i], begins[i + 1]) of `ids` each.
struct Table {
  std::vector<int32_t> qo, begins = {0}, ids, last;
  void add(const std::vector<int32_t>& pages) {
    ids.insert(ids.end(), pages.begin(), pages.end());
    begins.push_back(int32_t(ids.size())), last.push_back(kPage);
  }
};

struct Planned {
  AttentionPool pool;
  AttentionArgs flat;
  std::vector<AttentionArgs> levels;
  TensorView workspace;
  attention::BatchAttention batch;
  attention::BatchCascade cascade;
};

AttentionArgs with_table(Planned& p, const Table& t) {
  AttentionArgs a = p.flat;
  a.qo_indptr = p.pool.ids(t.qo), a.kv_indptr = p.pool.ids(t.begins);
  a.kv_indices = p.pool.ids(t.ids), a.last_page_len = p.pool.ids(t.last);
  return a;
}

enum class Form { kLevels, kFlat, kChosen, kFlatOnDevice };  // the last: flat, planned on the device

std::shared_ptr<Planned> planned(const Shared& s, Form form) {
  auto p = std::make_shared<Planned>();
  const int32_t prefix = s.prefix / kPage, own = s.suffix / kPage, total = prefix + s.batch * own;
  std::vector<int32_t> order(static_cast<size_t>(total));
  for (int32_t i = 0; i < total; ++i) order[size_t(i)] = i;
  std::shuffle(order.begin(), order.end(), std::mt19937(2));
  const std::vector<int32_t> shared(order.begin(), order.begin() + prefix);
  Table above{.qo = {0, s.batch}}, below{.qo = {0}}, flat{.qo = {0}};
  above.add(shared);
  for (int32_t b = 0; b < s.batch; ++b) {
    const auto begin = order.begin() + prefix + b * own;
    std::vector<int32_t> pages(begin, begin + own);
    below.qo.push_back(b + 1), below.add(pages);
    pages.insert(pages.begin(), shared.begin(), shared.end());
    flat.qo.push_back(b + 1), flat.add(pages);
  }
  AttentionArgs& a = p->flat;
  a.q = p->pool.random(DType::kBF16, {s.batch, s.num_qo_heads, kDim});
  a.out = p->pool.tensor(DType::kBF16, {s.batch, s.num_qo_heads, kDim});
  a.k = p->pool.random(DType::kBF16, {total, kPage, s.num_kv_heads, kDim});
  a.v = p->pool.random(DType::kBF16, {total, kPage, s.num_kv_heads, kDim});
  if (form == Form::kFlatOnDevice) {
    a = with_table(*p, flat);
    return p;
  }
  if (form == Form::kFlat) {
    a = with_table(*p, flat);
    p->batch.plan(a);
    a.workspace = p->pool.tensor(DType::kU8, {p->batch.workspace_bytes()});
    p->batch.plan(a);
    return p;
  }
  p->levels = {with_table(*p, above), with_table(*p, below)};
  if (form == Form::kChosen) return p;
  p->cascade.plan(p->levels);
  p->workspace = p->pool.tensor(DType::kU8, {p->cascade.workspace_bytes()});
  p->cascade.plan(p->levels, p->workspace);
  return p;
}

// A batch is planned once and run for every layer, each of which has its own keys.
Problem chosen_problem(const std::vector<std::shared_ptr<Planned>>& layers) {
  Planned& plan = *layers[0];
  plan.cascade.plan_on_device(plan.levels);
  plan.workspace = plan.pool.tensor(DType::kU8, {plan.cascade.workspace_bytes()});
  return {.num_calls = int32_t(layers.size()), .launch = [layers](int32_t, const Context& context) {
            Planned& first = *layers[0];
            first.cascade.use(context);
            for (const auto& layer : layers) {
              std::vector<AttentionArgs> levels = first.levels;
              for (AttentionArgs& a : levels) a.q = layer->flat.q, a.k = layer->flat.k, a.v = layer->flat.v;
              first.cascade.run(levels, layer->flat.out, {}, first.workspace);
            }
          }};
}

Problem flat_on_device(const std::vector<std::shared_ptr<Planned>>& layers) {
  Planned& plan = *layers[0];
  plan.batch.plan_on_device(plan.flat);
  plan.workspace = plan.pool.tensor(DType::kU8, {plan.batch.workspace_bytes()});
  return {.num_calls = int32_t(layers.size()), .launch = [layers](int32_t, const Context& context) {
            Planned& first = *layers[0];
            first.batch.use(context);
            for (const auto& layer : layers) {
              AttentionArgs a = first.flat;
              a.q = layer->flat.q, a.k = layer->flat.k, a.v = layer->flat.v, a.out = layer->flat.out;
              a.workspace = first.workspace;
              first.batch.run(a);
            }
          }};
}

Problem problem(const Shared& s, Form form) {
  const double keys = s.prefix + double(s.batch) * s.suffix;
  const double bytes = keys * s.num_kv_heads * kDim * 4 + double(s.batch) * s.num_qo_heads * kDim * 4;
  std::vector<std::shared_ptr<Planned>> sets = {planned(s, form)};
  while (double(sets.size()) * bytes < 200e6 && sets.size() < 24) sets.push_back(planned(s, form));
  if (form == Form::kChosen || form == Form::kFlatOnDevice) {
    Problem p = form == Form::kChosen ? chosen_problem(sets) : flat_on_device(sets);
    p.bytes = bytes, p.flops = double(s.batch) * s.prefix * s.num_qo_heads * kDim * 4;
    return p;
  }
  return {.num_sets = int32_t(sets.size()),
          .bytes = bytes,
          .flops = double(s.batch) * s.prefix * s.num_qo_heads * kDim * 4,
          .launch = [sets, form](int32_t set, const Context& context) {
            Planned& p = *sets[size_t(set)];
            p.batch.use(context), p.cascade.use(context);
            if (form == Form::kFlat) return p.batch.run(p.flat);
            p.cascade.run(p.levels, p.flat.out, {}, p.workspace);
          }};
}

// What the library would choose where it may.
const char* chosen(const Shared& s) {
  using Requests = std::vector<attention::PlanRequest>;
  const Requests above = {{0, s.batch, s.prefix}};
  const Requests below(size_t(s.batch), {0, 1, s.suffix});
  const std::span<const attention::PlanRequest> levels[] = {above, below};
  const attention::CascadeShape shape{s.num_qo_heads, s.num_kv_heads, kDim, 2};
  const bool flat = attention::predicted_us(levels, shape, true) < attention::predicted_us(levels, shape, false);
  return flat ? "flat" : "levels";
}

std::string name(const Shared& s) {
  return "shared prefix " + std::to_string(s.prefix) + ", B" + std::to_string(s.batch) + ", suffix " +
         std::to_string(s.suffix) + ", " + std::to_string(s.num_qo_heads) + "/" + std::to_string(s.num_kv_heads) +
         " D128 page 16; chosen: " + chosen(s);
}

}  // namespace

std::vector<Row> cascade_suite(bool sweep) {
  std::vector<Row> rows;
  const auto both = [&rows](const std::string& id, const Shared& s) {
    rows.push_back({id, name(s), [s] { return problem(s, Form::kLevels); }});
    rows.push_back({id + " flat", name(s), [s] { return problem(s, Form::kFlat); }});
    rows.push_back({id + " device", name(s), [s] { return problem(s, Form::kChosen); }});
    rows.push_back({id + " flat on device", name(s), [s] { return problem(s, Form::kFlatOnDevice); }});
  };
  if (!sweep) return both("C1", {}), rows;
  for (const auto& [qo, kv] : {std::pair{32, 32}, {32, 8}, {64, 8}})
    for (const int32_t batch : {4, 16, 64, 256})
      for (const int32_t prefix : {0, 64, 256, 1024, 4096, 16384})
        both("C" + std::to_string(qo) + "/" + std::to_string(kv) + " B" + std::to_string(batch) + " p" +
                 std::to_string(prefix),
             {batch, prefix, 256, qo, kv});
  return rows;
}

}  // namespace fulmen::gpu
