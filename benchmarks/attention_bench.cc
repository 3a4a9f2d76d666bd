// SPDX-License-Identifier: Apache-2.0
// attention on the CPU's standard rows: bf16, NHD, page size 16, shuffled page table. The result of three query rows of
// the first and the last request is checked against the oracle before anything is timed.
// Row 2 fits into the last-level cache of many machines and is measured twice: again and again on the same keys, and
// (cold) each call on the next of several caches, as the layers of a model follow one another.
#include <fulmen/attention/call.h>
#include <fulmen/reference/attention.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "benchmarks/support.h"
#include "tests/support/within.h"

namespace fulmen {
namespace {

struct Row {
  const char* id;
  int64_t batch_size, num_qo_heads, num_kv_heads, head_dim, qo_len, kv_len;
  int32_t window_left = -1;
  DType kv_dtype = DType::kBF16;
  KvLayout layout = KvLayout::kNHD;
  int64_t num_caches = 1;
};

constexpr int64_t kPageSize = 16;

struct Problem {
  testing::Tensor q, k, v, qo_indptr, block_tables, seq_lens, out;
  attention::BatchAttention plan;
  std::vector<uint8_t> workspace;
  AttentionArgs args;
  int64_t num_caches, at_cache = 0;

  // A block of random numbers, repeated: as good for timing, and quick to make.
  static void fill(testing::Tensor& t, uint64_t seed) {
    const int64_t n = t.view().num_elements(), block = std::min<int64_t>(n, 100003);  // prime: no two rows alike
    testing::Tensor random(t.view().dtype, {block});
    random.fill_normal(seed);
    const size_t size = size_t(size_of(t.view().dtype));
    for (int64_t at = 0; at < n; at += block)
      std::memcpy(t.data<uint8_t>() + size_t(at) * size, random.view().data, size_t(std::min(block, n - at)) * size);
  }

  explicit Problem(const Row& r) : num_caches(r.num_caches) {
    const int64_t pages = (r.kv_len + kPageSize - 1) / kPageSize, total_q = r.batch_size * r.qo_len;
    const bool hnd = r.layout == KvLayout::kHND;
    const std::vector<int64_t> cache{r.batch_size * pages, hnd ? r.num_kv_heads : kPageSize,
                                     hnd ? kPageSize : r.num_kv_heads, r.head_dim};
    q = testing::Tensor(DType::kBF16, {total_q, r.num_qo_heads, r.head_dim});
    out = testing::Tensor(DType::kBF16, {total_q, r.num_qo_heads, r.head_dim});
    std::vector<int64_t> all = cache;
    all[0] *= num_caches;
    k = testing::Tensor(r.kv_dtype, all);
    v = testing::Tensor(r.kv_dtype, all);
    fill(q, 1), fill(k, 2), fill(v, 3);
    std::vector<int64_t> order(size_t(r.batch_size * pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(4));
    block_tables = testing::Tensor(DType::kI32, {r.batch_size, pages});
    block_tables.fill([&](int64_t i) { return order[size_t(i)]; });
    seq_lens = testing::Tensor(DType::kI32, {r.batch_size});
    seq_lens.fill([&](int64_t) { return r.kv_len; });
    qo_indptr = testing::Tensor(DType::kI32, {r.batch_size + 1});
    qo_indptr.fill([&](int64_t i) { return i * r.qo_len; });
    args = {.q = q,
            .k = k,
            .v = v,
            .qo_indptr = qo_indptr,
            .block_tables = block_tables,
            .seq_lens = seq_lens,
            .out = out,
            .options = {.kv_layout = r.layout, .causal = true, .window_left = r.window_left}};
    args.k.shape[0] = args.v.shape[0] = cache[0];
    plan.plan(args);
    workspace.resize(size_t(plan.workspace_bytes()));
    args.workspace = view_of(workspace.data(), {int64_t(workspace.size())});
  }

  void run() {
    const int64_t bytes = args.k.shape[0] * args.k.strides[0] * size_of(args.k.dtype) * at_cache;
    args.k.data = k.data<uint8_t>() + bytes, args.v.data = v.data<uint8_t>() + bytes;
    at_cache = (at_cache + 1) % num_caches;
    plan.run(args);
  }

  // Row i of request b is a decode over the keys up to its own position.
  ::testing::AssertionResult check_row(const Row& r, int64_t b, int64_t i) const {
    testing::Tensor length(DType::kI32, {1});
    length.set(0, double(r.kv_len - r.qo_len + i + 1));
    AttentionArgs one = args;
    one.qo_indptr = TensorView{};
    one.seq_lens = length;
    one.block_tables.data = one.block_tables.as<int32_t>() + b * one.block_tables.strides[0];
    one.block_tables.shape[0] = 1;
    for (TensorView* t : {&one.q, &one.out}) {
      t->data = t->as<bf16>() + (b * r.qo_len + i) * t->strides[0];
      t->shape[0] = 1;
    }
    const reference::AttentionValues want = reference::attention(one);
    const double worst = testing::worst_ratio(one.out, want.out);
    if (worst <= 1) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << "row " << i << " of request " << b << " is " << worst
                                         << " times the bound off";
  }
  ::testing::AssertionResult check(const Row& r) const {
    for (const int64_t b : {int64_t(0), r.batch_size - 1})
      for (const int64_t i : {int64_t(0), r.qo_len / 2, r.qo_len - 1})
        if (const ::testing::AssertionResult result = check_row(r, b, i); !result) return result;
    return ::testing::AssertionSuccess();
  }
};

void add_row(const Row& r) {
  const auto text = [](int64_t n) { return std::to_string(n); };
  const std::string shape = "B" + text(r.batch_size) + " " + text(r.num_qo_heads) + "/" + text(r.num_kv_heads) + " d" +
                            text(r.head_dim) + " " + text(r.qo_len) + " on " + text(r.kv_len) +
                            (r.layout == KvLayout::kHND ? " HND" : "") + (r.num_caches > 1 ? " cold" : "");
  bench::add(std::string("attention/") + r.id + "/" + name_of(r.kv_dtype), shape, [r] {
    auto p = std::make_shared<Problem>(r);
    return bench::Subject{.run = [p] { p->run(); },
                          .check = [p, r] { return p->check(r); },
                          .cost = cost(p->args),
                          .footprint_bytes = cost(p->args).bytes * double(r.num_caches),
                          .bf16_products = r.kv_dtype == DType::kBF16};
  });
}

}  // namespace
}  // namespace fulmen

int main(int argc, char** argv) {
  using fulmen::DType, fulmen::KvLayout;
  const fulmen::Row rows[] = {
      {"1", 8, 32, 8, 128, 1, 4096},
      {"2", 1, 32, 8, 128, 1, 4096},
      {"3", 1, 32, 8, 128, 1, 32768},
      {"4", 8, 64, 8, 128, 1, 8192},
      {"5", 8, 64, 8, 64, 1, 4096},
      {"6", 32, 32, 32, 128, 1, 1024},
      {"8", 1, 32, 8, 128, 512, 512},
      {"9", 1, 32, 8, 128, 2048, 2048},
      {"10", 1, 32, 8, 128, 512, 8704},
      {"11", 4, 32, 8, 128, 16, 4112},
      {"12", 1, 32, 8, 128, 4096, 4096, 1023},
  };
  for (const fulmen::Row& row : rows) fulmen::add_row(row);
  fulmen::add_row({"2", 1, 32, 8, 128, 1, 4096, -1, DType::kBF16, KvLayout::kNHD, 16});
  fulmen::add_row({"1", 8, 32, 8, 128, 1, 4096, -1, DType::kBF16, KvLayout::kHND});
  for (const DType t : {DType::kF32, DType::kF16, DType::kE4M3}) fulmen::add_row({"1", 8, 32, 8, 128, 1, 4096, -1, t});
  return fulmen::bench::run(argc, argv, "attention");
}
