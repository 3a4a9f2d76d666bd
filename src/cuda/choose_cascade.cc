// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/choose_cascade.h"

#include <fulmen/core/math.h>

#include "src/cuda/attention_prepare.h"
#include "src/cuda/ids.h"

namespace fulmen::cuda {
namespace {

using choose_cascade::Key, choose_cascade::Params;

Work<Key, Params> work_of(const attention::CascadeChoice& c, const Device& device) {
  Params p{};
  p.num_levels = int32_t(c.levels.size());
  for (size_t i = 0; i < c.levels.size(); ++i) {
    const attention::CascadeLevel& l = c.levels[i];
    p.levels[i] = {ids_of(l.qo_indptr),
                   ids_of(l.kv_indptr),
                   ids_of(l.kv_indices),
                   ids_of(l.last_page_len),
                   int32_t(l.qo_indptr.shape[0] - 1),
                   int32_t(l.kv_indices.shape[0]),
                   l.rows.defined() ? l.rows.as<int32_t>() : nullptr};
  }
  p.shape = c.shape;
  p.total_q = int32_t(c.total_q), p.page_size = int32_t(c.page_size), p.causal = c.causal;
  p.kv_indptr = c.kv_indptr.as<int32_t>();
  p.last_page_len = c.last_page_len.as<int32_t>(), p.page_ids = c.page_ids.as<int32_t>();
  p.max_ids = int32_t(c.page_ids.shape[0]), p.num_above = c.num_above.as<int32_t>();
  // Every CTA reads all lengths; more of them only copy page ids.
  const int64_t useful = math::ceil_div(c.page_ids.shape[0], int64_t(8) * choose_cascade::kThreads);
  return {.key = {},
          .params = p,
          .shape = {.grid = uint32_t(std::clamp<int64_t>(useful, 1, device.num_sms)),
                    .num_threads = choose_cascade::kThreads,
                    .shared_bytes = uint32_t(sizeof(choose_cascade::Shared))}};
}

}  // namespace

void ChooseCascade::launch(const Args& a, const Device& device, const Context& context) {
  if (must_make(a.made, a.num_above.data, device, context)) run(kName, work_of(a, device), device, context);
}

void ChooseCascade::prepare(const Args& a, const Device& device) { cuda::prepare(kName, work_of(a, device), device); }

}  // namespace fulmen::cuda
