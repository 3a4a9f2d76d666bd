// SPDX-License-Identifier: Apache-2.0
#include <fulmen/reference/append_paged_mla_kv_cache.h>

#include <memory>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

struct Problem {
  testing::Tensor ckv, kpe, ckv_cache, kpe_cache, batch_indices, positions, indices, indptr;
};

// batch_size requests of kv_len tokens; the last append_len of each are new.
void add_row(int64_t batch_size, int64_t append_len, int64_t kv_len) {
  constexpr int64_t kPage = 16, kCkv = 512, kKpe = 64;
  const std::string shape =
      "B" + std::to_string(batch_size) + " " + std::to_string(append_len) + " on " + std::to_string(kv_len);
  bench::add("append_paged_mla_kv_cache/bfloat16", shape, [=] {
    const int64_t nnz = batch_size * append_len, pages = (kv_len + kPage - 1) / kPage, all = batch_size * pages;
    auto p = std::make_shared<Problem>(Problem{{DType::kBF16, {nnz, kCkv}},
                                               {DType::kBF16, {nnz, kKpe}},
                                               {DType::kBF16, {all, kPage, kCkv}},
                                               {DType::kBF16, {all, kPage, kKpe}},
                                               {DType::kI32, {nnz}},
                                               {DType::kI32, {nnz}},
                                               {DType::kI32, {all}},
                                               {DType::kI32, {batch_size + 1}}});
    p->ckv.fill_normal(1);
    p->kpe.fill_normal(2);
    p->ckv_cache.poison(0), p->kpe_cache.poison(0);
    p->indices.fill([=](int64_t i) { return double(i * 7919 % all); });  // a permutation unless 7919 divides all
    p->indptr.fill([=](int64_t b) { return double(b * pages); });
    p->batch_indices.fill([=](int64_t t) { return double(t / append_len); });
    p->positions.fill([=](int64_t t) { return double(kv_len - append_len + t % append_len); });
    const AppendPagedMlaKvCacheArgs args{.append_ckv = p->ckv,
                                         .append_kpe = p->kpe,
                                         .batch_indices = p->batch_indices,
                                         .positions = p->positions,
                                         .ckv_cache = p->ckv_cache,
                                         .kpe_cache = p->kpe_cache,
                                         .kv_indices = p->indices,
                                         .kv_indptr = p->indptr};
    auto expected = std::make_shared<reference::AppendedMla>(reference::appended(args));
    return bench::Subject{.run = [args] { append_paged_mla_kv_cache(args); },
                          .check = [=] { return testing::within(p->ckv_cache, expected->ckv); },
                          .cost = cost(args)};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  fulmen::add_row(8, 1, 5000);
  fulmen::add_row(8, 512, 5000);
  return fulmen::bench::run(argc, argv, "append_paged_mla_kv_cache");
}
