// SPDX-License-Identifier: Apache-2.0
// What is known about an attention call before it runs: its cost, and arguments for planning without tensors.
#include <fulmen/attention/call.h>

#include <algorithm>

namespace fulmen {

Cost cost(const AttentionArgs& args) {
  AttentionArgs a = args;
  std::vector<attention::PlanRequest> requests;
  const AttentionEntry entry = a.q.rank == 2 ? AttentionEntry::kSingleDecode : AttentionEntry::kBatchAttention;
  const AttentionDims d = attention::prepare(a, entry, requests);
  const attention::Standard variant = attention::standard_variant(a);
  double pairs = 0, keys = 0, rows = 0;
  for (const attention::PlanRequest& r : requests) {
    int32_t first = r.kv_len, last = 0;
    for (int32_t i = 0; i < r.qo_len; ++i) {
      const attention::KvRange seen = variant.visible({0, i, 0, 0, r.qo_len, r.kv_len});
      if (seen.begin >= seen.end) continue;
      pairs += seen.end - seen.begin;
      first = std::min(first, seen.begin);
      last = std::max(last, seen.end);
    }
    keys += std::max(0, last - first);
    rows += r.qo_len;
  }
  const double dims = double(d.head_dim_qk + d.head_dim_vo);
  return {.bytes = keys * double(d.num_kv_heads) * dims * size_of(a.k.dtype) +
                   rows * double(d.num_qo_heads) *
                       double(d.head_dim_qk * size_of(a.q.dtype) + d.head_dim_vo * size_of(a.out.dtype)),
          .flops = 2 * dims * pairs * double(d.num_qo_heads)};
}

namespace attention {

AttentionArgs placeholder(const AttentionArgs& given, const AttentionShape& shape, AttentionEntry entry) {
  AttentionArgs a = given;
  const auto view = [](std::initializer_list<int64_t> sizes) {
    return view_of(static_cast<float*>(no_memory()), sizes);
  };
  const int64_t s = shape.page_size, h = shape.num_kv_heads, many = int64_t(1) << 31;  // page ids are checked at run
  const auto cache = [&](int64_t dim) { return s > 0 ? view({many, s, h, dim}) : view({many, h, dim}); };
  a.options.kv_layout = KvLayout::kNHD;
  a.k = cache(shape.head_dim_qk), a.v = cache(shape.head_dim_vo);
  a.q = view({shape.total_q, shape.num_qo_heads, shape.head_dim_qk});
  a.out = view({shape.total_q, shape.num_qo_heads, shape.head_dim_vo});
  if (entry == AttentionEntry::kSingleDecode) {
    a.q = view({shape.num_qo_heads, shape.head_dim_qk});
    a.out = view({shape.num_qo_heads, shape.head_dim_vo});
  }
  a.lse = a.workspace = TensorView{};
  return a;
}

}  // namespace attention
}  // namespace fulmen
