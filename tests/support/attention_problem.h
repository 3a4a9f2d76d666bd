// SPDX-License-Identifier: Apache-2.0
// Attention calls for tests: random queries, keys and values in shuffled pages or ragged, with every option; every slot
// that no request owns holds a poison byte. Comparison with the reference row by row.
#pragma once
#include <fulmen/ops/attention.h>
#include <fulmen/reference/attention.h>

#include <numeric>

#include "tests/support/levels.h"
#include "tests/support/within.h"

namespace fulmen::testing {

enum class Table { kRagged, kCsr, kCsrSeqLens, kBlockTables };

using Lens = std::vector<std::pair<int64_t, int64_t>>;

// Batches of every kind: (qo_len, kv_len) per request.
inline const std::vector<Lens> kLens = {
    {{1, 1}, {1, 0}, {1, 17}, {1, 130}},   // decode
    {{17, 17}, {0, 5}, {5, 0}, {33, 33}},  // prefill, an empty query and an empty cache
    {{3, 40}, {16, 150}},                  // append, verify
    {{1, 70}, {20, 20}, {0, 0}, {7, 3}},   // mixed; more queries than keys
    {{1, 1100}},                           // long enough to be split
    {{70, 300}},
};

struct AttentionCase {
  DType q_dtype = DType::kF32, kv_dtype = DType::kF32, out_dtype = DType::kF32;
  int64_t num_kv_heads = 2, group = 2, d_qk = 64, d_vo = 64, page_size = 16;
  Table table = Table::kCsr;
  KvLayout layout = KvLayout::kNHD;
  bool wide_ids = false, one_tensor = false, alibi = false, mask = false, sinks = false;
  int64_t row_padding = 0;                                    // between query and output rows
  std::vector<std::pair<int64_t, int64_t>> lens = {{1, 40}};  // (qo_len, kv_len) per request
  int64_t idle_rows = 0;                                      // query rows after the last request's
  AttentionOptions options;
  uint64_t seed = 1;
  uint8_t poison = 0xff;
  double scale = 1;  // of K
};

struct AttentionProblem {
  AttentionCase c;
  Tensor q, k, v, kv, qo_indptr, kv_indptr, kv_indices, last_page_len, block_tables, seq_lens, out, lse, custom_mask,
      mask_indptr, alibi_slopes, sinks;
  AttentionArgs args;

  explicit AttentionProblem(const AttentionCase& given) : c(given) {
    c.options.kv_layout = c.layout;
    const int64_t batch = int64_t(c.lens.size()), heads = c.num_kv_heads * c.group;
    int64_t total_q = c.idle_rows;
    for (const auto& [qo_len, kv_len] : c.lens) total_q += qo_len;
    q = Tensor(c.q_dtype, {total_q, heads, c.d_qk}, c.row_padding).fill_normal(c.seed);
    out = Tensor(c.out_dtype, {total_q, heads, c.d_vo}, c.row_padding);
    lse = Tensor(DType::kF32, {total_q, heads});
    qo_indptr = indptr(c.wide_ids, [](const auto& len) { return len.first; });
    make_kv(batch);
    alibi_slopes = Tensor(DType::kF32, {heads}).fill([](int64_t h) { return std::exp2(-0.5 * double(h + 1)); });
    sinks = Tensor(DType::kF32, {heads}).fill_normal(c.seed + 4, 2);
    make_mask();
    args = {.q = q, .k = k, .v = v, .qo_indptr = qo_indptr, .out = out, .lse = lse, .options = c.options};
    if (c.one_tensor) split_kv();
    if (c.mask) args.custom_mask = custom_mask, args.mask_indptr = mask_indptr;
    if (c.alibi) args.alibi_slopes = alibi_slopes;
    if (c.sinks) args.sinks = sinks;
    if (c.table == Table::kBlockTables) {
      args.block_tables = block_tables, args.seq_lens = seq_lens;
    } else {
      args.kv_indptr = kv_indptr;
      if (c.table != Table::kRagged) args.kv_indices = kv_indices;
      if (c.table == Table::kCsr) args.last_page_len = last_page_len;
      if (c.table == Table::kCsrSeqLens) args.seq_lens = seq_lens;
    }
  }
  AttentionProblem(const AttentionProblem&) = delete;

  template <class F>
  Tensor indptr(bool wide, F len) const {
    Tensor t(wide ? DType::kI64 : DType::kI32, {int64_t(c.lens.size()) + 1});
    int64_t sum = 0;
    t.set(0, 0);
    for (size_t b = 0; b < c.lens.size(); ++b) t.set(int64_t(b) + 1, double(sum += len(c.lens[b])));
    return t;
  }

  int64_t pages_of(int64_t kv_len) const { return (kv_len + c.page_size - 1) / c.page_size; }

  void make_kv(int64_t batch) {
    const bool hnd = c.layout == KvLayout::kHND;
    const DType ids = c.wide_ids ? DType::kI64 : DType::kI32;
    int64_t total_kv = 0, total_pages = 0, widest = 0;
    for (const auto& [qo_len, kv_len] : c.lens) {
      total_kv += kv_len, total_pages += pages_of(kv_len), widest = std::max(widest, pages_of(kv_len));
    }
    const int64_t num_pages = total_pages + 3;  // three that nobody owns
    std::vector<int64_t> pages(static_cast<size_t>(num_pages));
    std::iota(pages.begin(), pages.end(), 0);
    std::shuffle(pages.begin(), pages.end(), std::mt19937_64(c.seed + 100));
    const bool paged = c.table != Table::kRagged;
    const auto shape = [&](int64_t d) -> std::vector<int64_t> {
      if (!paged)
        return hnd ? std::vector<int64_t>{c.num_kv_heads, total_kv, d}
                   : std::vector<int64_t>{total_kv, c.num_kv_heads, d};
      if (hnd) return {num_pages, c.num_kv_heads, c.page_size, d};
      return {num_pages, c.page_size, c.num_kv_heads, d};
    };
    k = Tensor(c.kv_dtype, shape(c.d_qk));
    v = Tensor(c.kv_dtype, shape(c.d_vo));
    k.poison(c.poison), v.poison(c.poison);
    kv_indptr = indptr(c.wide_ids, [&](const auto& len) { return paged ? pages_of(len.second) : len.second; });
    kv_indices = Tensor(ids, {total_pages + 2}).fill([](int64_t) { return -7; });  // the tail is nobody's
    block_tables = Tensor(ids, {batch, widest + 1}).fill([](int64_t) { return -7; });
    last_page_len = Tensor(ids, {batch});
    seq_lens = Tensor(ids, {batch});
    std::mt19937_64 rng(c.seed + 1);
    std::normal_distribution<double> normal;
    int64_t token = 0, page = 0;
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t kv_len = c.lens[size_t(b)].second;
      seq_lens.set(b, double(kv_len));
      last_page_len.set(b, double(kv_len == 0 ? 0 : (kv_len - 1) % c.page_size + 1));
      for (int64_t i = 0; i < pages_of(kv_len); ++i) {
        kv_indices.set(page + i, double(pages[size_t(page + i)]));
        block_tables.set(b * (widest + 1) + i, double(pages[size_t(page + i)]));
      }
      for (int64_t t = 0; t < kv_len; ++t)
        for (int64_t h = 0; h < c.num_kv_heads; ++h) {
          const int64_t p = paged ? pages[size_t(page + t / c.page_size)] : 0, rows = paged ? c.page_size : total_kv;
          const int64_t slot = paged ? t % c.page_size : token + t;
          const int64_t row = p * rows * c.num_kv_heads + (hnd ? h * rows + slot : slot * c.num_kv_heads + h);
          for (int64_t d = 0; d < c.d_qk; ++d) k.set(row * c.d_qk + d, c.scale * normal(rng));
          for (int64_t d = 0; d < c.d_vo; ++d) v.set(row * c.d_vo + d, normal(rng));
        }
      token += kv_len, page += pages_of(kv_len);
    }
  }

  // The same cache as one tensor [num_pages, 2, ...]: views with a page stride of two caches.
  void split_kv() {
    const TensorView a = k.view(), b = v.view();
    const int64_t page = a.num_elements() / a.shape[0];
    kv = Tensor(c.kv_dtype, {a.shape[0], 2, page});
    const int64_t bytes = page * size_of(c.kv_dtype);
    for (int64_t p = 0; p < a.shape[0]; ++p) {
      std::memcpy(kv.data<char>() + 2 * p * bytes, k.data<char>() + p * bytes, size_t(bytes));
      std::memcpy(kv.data<char>() + (2 * p + 1) * bytes, v.data<char>() + p * bytes, size_t(bytes));
    }
    args.k = a, args.v = b;
    args.k.data = kv.data<char>();
    args.v.data = kv.data<char>() + bytes;
    args.k.strides[0] = args.v.strides[0] = 2 * page;
  }

  void make_mask() {
    int64_t bytes = 0;
    mask_indptr = Tensor(DType::kI32, {int64_t(c.lens.size()) + 1});
    mask_indptr.set(0, 0);
    for (size_t b = 0; b < c.lens.size(); ++b)
      mask_indptr.set(int64_t(b) + 1, double(bytes += (c.lens[b].first * c.lens[b].second + 7) / 8));
    custom_mask = Tensor(DType::kU8, {bytes}).fill_integers(c.seed + 5, 0, 255);
    if (c.mask && bytes > 8) std::memset(custom_mask.data<uint8_t>(), 0, size_t(bytes) / 8);  // some rows see nothing
  }
};

// Worst error / bound over the rows that some request owns; others must still hold the poison of their constructor.
struct Ratios {
  double out = 0, lse = 0;
};
inline double row_ratio(const TensorView& got, const reference::Values& want, const std::vector<bool>& owned) {
  const int64_t rows = got.shape[0], width = rows == 0 ? 0 : got.num_elements() / rows;
  double worst = 0;
  for (int64_t i = 0; i < rows * width; ++i) {
    const double x = reference::element(got, i);
    if (!owned[size_t(i / width)]) {
      if (!std::isnan(x)) return INFINITY;
      continue;
    }
    const auto [value, bound] = want[size_t(i)];
    if (x == value) continue;
    const double ratio = std::isinf(value) ? INFINITY : std::abs(x - value) / bound;
    worst = ratio <= worst ? worst : ratio > worst ? ratio : INFINITY;  // NaN is infinitely wrong
  }
  return worst;
}
inline Ratios ratios(const AttentionProblem& p, const reference::AttentionValues& want) {
  return {row_ratio(p.out, want.out, want.owned), row_ratio(p.lse, want.lse, want.owned)};
}
inline ::testing::AssertionResult within(const AttentionProblem& p, const reference::AttentionValues& want) {
  const Ratios r = ratios(p, want);
  if (!p.out.guards_intact() || !p.lse.guards_intact())
    return ::testing::AssertionFailure() << "wrote outside out or lse";
  if (r.out <= 1 && r.lse <= 1) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "error / bound is " << r.out << " in out, " << r.lse << " in lse";
}

inline std::string describe(const AttentionCase& c) {
  std::string text =
      std::string("q ") + name_of(c.q_dtype) + " kv " + name_of(c.kv_dtype) + " out " + name_of(c.out_dtype);
  const auto add = [&](const char* name, auto value) { text += std::string(" ") + name + " " + std::to_string(value); };
  add("kv_heads", c.num_kv_heads), add("group", c.group), add("d_qk", c.d_qk), add("d_vo", c.d_vo),
      add("page", c.page_size);
  add("table", int(c.table)), add("hnd", int(c.layout)), add("wide", c.wide_ids), add("one_tensor", c.one_tensor);
  add("alibi", c.alibi), add("mask", c.mask), add("sinks", c.sinks), add("causal", c.options.causal);
  add("window", c.options.window_left), add("cap", c.options.logits_soft_cap), add("rope", c.options.rope_theta);
  add("fixed", c.options.fixed_split_len), add("base2", int(c.options.lse_base)), text += " lens";
  for (const auto& [qo_len, kv_len] : c.lens) text += " " + std::to_string(qo_len) + "/" + std::to_string(kv_len);
  return text;
}

}  // namespace fulmen::testing
