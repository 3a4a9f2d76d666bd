// SPDX-License-Identifier: Apache-2.0
// Any page tables: whatever the check lets through names pages that exist and lengths that fit them.
#include <fulmen/attention/call.h>

#include <vector>

#include "fuzz/input.h"

namespace fulmen::fuzz {
namespace {

TensorView ids(std::vector<int32_t>& numbers) { return view_of(numbers.data(), {int64_t(numbers.size())}); }

std::vector<int32_t> numbers(Input& in, int32_t count, int32_t most) {
  std::vector<int32_t> all(static_cast<size_t>(count));
  for (int32_t& n : all) n = in.below(32) == 0 ? in.take<int32_t>() : in.below(most + 1);
  return all;
}

void ascending(std::vector<int32_t>& all) {
  for (size_t i = 1; i < all.size(); ++i) all[i] = int32_t(uint32_t(all[i]) + uint32_t(all[i - 1]));
  if (!all.empty()) all[0] = 0;
}

}  // namespace
}  // namespace fulmen::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fulmen;
  using namespace fulmen::fuzz;
  Input in{data, size};
  static float memory[16];
  const int32_t batch = in.below(5), num_pages = in.below(9), page_size = 1 + in.below(17);
  std::vector<int32_t> qo = numbers(in, batch + 1, 4), kv = numbers(in, batch + 1, 4);
  if (in.below(8) != 0) ascending(qo), ascending(kv);
  std::vector<int32_t> pages = numbers(in, in.below(20), num_pages), last = numbers(in, batch, page_size);
  std::vector<int32_t> table = numbers(in, batch * 3, num_pages), lens = numbers(in, batch, 3 * page_size);
  const int64_t total_q = in.below(4) == 0 || qo.empty() ? in.take<int32_t>() : qo.back();

  AttentionArgs a;
  a.q = view_of(memory, {total_q, 2, 8});
  a.k = a.v = view_of(memory, {num_pages, page_size, 1, 8});
  a.out = view_of(static_cast<float*>(no_memory()), {total_q, 2, 8});
  a.qo_indptr = ids(qo);
  const bool csr = in.below(2) == 0;
  if (csr) {
    a.kv_indptr = ids(kv), a.kv_indices = ids(pages);
    in.below(3) == 0 ? a.seq_lens = ids(lens) : a.last_page_len = ids(last);
  } else {
    a.block_tables = view_of(table.data(), {batch, 3}), a.seq_lens = ids(lens);
  }
  std::vector<attention::PlanRequest> requests;
  if (!accepts([&] { attention::prepare(a, AttentionEntry::kBatchPrefillPaged, requests); })) return 0;
  expect(requests.size() == size_t(batch));
  for (size_t b = 0; b < requests.size(); ++b) {
    const attention::PlanRequest& r = requests[b];
    expect(r.qo_begin >= 0 && r.qo_len >= 0 && r.qo_begin + r.qo_len <= total_q && r.kv_len >= 0);
    const int32_t num = (r.kv_len + page_size - 1) / page_size;
    expect(csr ? num <= kv[b + 1] - kv[b] && (num == 0 || kv[b] + num <= int32_t(pages.size())) : num <= 3);
    for (int32_t i = 0; i < num; ++i) {
      const int32_t page = csr ? pages[size_t(kv[b] + i)] : table[b * 3 + size_t(i)];
      expect(page >= 0 && page < num_pages);
    }
  }
  return 0;
}
