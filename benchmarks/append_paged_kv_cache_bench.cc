// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/reference/append_paged_kv_cache.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

struct Problem {
  testing::Tensor key, value, k_cache, v_cache, batch_indices, positions, indices, indptr;
};

// batch_size requests of kv_len tokens in shuffled pages; the last append_len of each are new.
void add_row(int64_t batch_size, int64_t append_len, int64_t kv_len, int64_t num_kv_heads, int64_t head_dim) {
  constexpr int64_t kPage = 16;
  const std::string shape = "B" + std::to_string(batch_size) + " " + std::to_string(append_len) + " on " +
                            std::to_string(kv_len) + " H" + std::to_string(num_kv_heads) + " d" +
                            std::to_string(head_dim);
  bench::add("append_paged_kv_cache/bfloat16_nhd", shape, [=] {
    const int64_t nnz = batch_size * append_len, pages = (kv_len + kPage - 1) / kPage, all = batch_size * pages;
    const std::vector<int64_t> rows{nnz, num_kv_heads, head_dim}, cache{all, kPage, num_kv_heads, head_dim};
    auto p = std::make_shared<Problem>(Problem{{DType::kBF16, rows},
                                               {DType::kBF16, rows},
                                               {DType::kBF16, cache},
                                               {DType::kBF16, cache},
                                               {DType::kI32, {nnz}},
                                               {DType::kI32, {nnz}},
                                               {DType::kI32, {all}},
                                               {DType::kI32, {batch_size + 1}}});
    p->key.fill_normal(1);
    p->value.fill_normal(2);
    p->k_cache.poison(0), p->v_cache.poison(0);
    std::vector<int64_t> order(static_cast<size_t>(all));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(3));
    p->indices.fill([&](int64_t i) { return double(order[size_t(i)]); });
    p->indptr.fill([&](int64_t b) { return double(b * pages); });
    p->batch_indices.fill([&](int64_t t) { return double(t / append_len); });
    p->positions.fill([&](int64_t t) { return double(kv_len - append_len + t % append_len); });
    const AppendPagedKvCacheArgs args{.append_key = p->key,
                                      .append_value = p->value,
                                      .batch_indices = p->batch_indices,
                                      .positions = p->positions,
                                      .k_cache = p->k_cache,
                                      .v_cache = p->v_cache,
                                      .kv_indices = p->indices,
                                      .kv_indptr = p->indptr};
    const auto expected = [p](const AppendPagedKvCacheArgs& a) {
      testing::Tensor before = p->k_cache;
      before.poison(0);
      return reference::appended(a, a.append_key, before);
    };
    return bench::Subject{.run = [args] { append_paged_kv_cache(args); },
                          .check = [=] { return testing::within(p->k_cache, expected(args)); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(8, 1, 5000, 8, 128);
  fulmen::add_row(8, 512, 5000, 8, 128);
  fulmen::add_row(1, 5000, 5000, 8, 128);
  fulmen::add_row(8, 512, 5000, 1, 128);
  return fulmen::bench::run(argc, argv, "append_paged_kv_cache");
}
