// SPDX-License-Identifier: Apache-2.0
// A batch whose requests share keys in levels, as levels and, for the reference, flat: a table of all their keys each.
#pragma once
#include <fulmen/attention/cascade.h>
#include <fulmen/reference/attention.h>

#include <algorithm>
#include <numeric>
#include <random>

#include "tests/support/tensor.h"
#include "tests/support/within.h"

namespace fulmen::testing {

struct CascadeCase {
  // Of each level above the last: (requests, keys) of each group, the keys a multiple of the page size.
  std::vector<std::vector<std::pair<int64_t, int64_t>>> shared;
  std::vector<std::pair<int64_t, int64_t>> own;  // (qo_len, kv_len) of each request
  int64_t page_size = 4, num_kv_heads = 2, group = 2, dim = 64;
  DType dtype = DType::kBF16, out_dtype = DType::kBF16;
  bool causal = false;
};

inline std::vector<CascadeCase> cascade_cases() {
  const std::vector<std::pair<int64_t, int64_t>> own = {{1, 9}, {1, 0}, {1, 40}, {1, 1}, {1, 3}};
  std::vector<CascadeCase> all;
  all.push_back({.shared = {{{5, 100}}}, .own = own});
  all.push_back({.shared = {{{5, 0}}}, .own = own});  // a prefix of no keys
  all.push_back({.shared = {{{5, 16}}, {{3, 24}, {2, 0}}}, .own = own, .page_size = 8, .dtype = DType::kF16});
  all.push_back({.shared = {{{5, 33}}}, .own = own, .page_size = 1, .num_kv_heads = 1, .group = 5, .dim = 128});
  all.push_back({.shared = {{{2, 0}, {1, 48}}}, .own = {{1, 0}, {0, 7}, {3, 70}}, .out_dtype = DType::kF32});
  all.push_back({.shared = {{{3, 64}}}, .own = {{7, 7}, {1, 40}, {20, 31}}, .causal = true});
  all.push_back({.shared = {{{2, 200}}, {{1, 4}, {1, 8}}}, .own = {{2, 2}, {2, 60}}, .dim = 128, .causal = true});
  all.push_back({.shared = {{{3, 64}}}, .own = {{7, 7}, {1, 40}, {60, 31}}, .num_kv_heads = 1, .dim = 256});
  for (int64_t batch : {40, 130}) {  // tiles of many rows above, of few below
    CascadeCase c{.shared = {{{batch, 300}}}, .own = {}, .num_kv_heads = 1, .group = 1};
    for (int64_t b = 0; b < batch; ++b) c.own.push_back({1, b % 7 == 0 ? 0 : 1 + b % 30});
    all.push_back(c);
  }
  return all;
}

struct CascadeTable {
  std::vector<int64_t> qo = {0}, kv = {0}, ids, last;
  void add(int64_t rows, const std::vector<int64_t>& pages, int64_t last_page_len) {
    qo.push_back(qo.back() + rows);
    ids.insert(ids.end(), pages.begin(), pages.end());
    kv.push_back(int64_t(ids.size())), last.push_back(last_page_len);
  }
};

struct CascadeProblem {
  CascadeCase c;
  Tensor q, k, v, out, lse;
  std::vector<Tensor> tables;  // qo_indptr, kv_indptr, kv_indices, last_page_len of each level, then of flat
  std::vector<AttentionArgs> levels;
  AttentionArgs flat;

  explicit CascadeProblem(const CascadeCase& given) : c(given) {
    int64_t rows = 0, pages = 3;
    for (const auto& [qo_len, kv_len] : c.own) rows += qo_len, pages += pages_of(kv_len);
    for (const auto& level : c.shared)
      for (const auto& [requests, kv_len] : level) pages += pages_of(kv_len);
    const int64_t heads = c.num_kv_heads * c.group;
    q = Tensor(c.dtype, {rows, heads, c.dim}).fill_normal(1);
    k = Tensor(c.dtype, {pages, c.page_size, c.num_kv_heads, c.dim}).fill_normal(2);
    v = Tensor(c.dtype, {pages, c.page_size, c.num_kv_heads, c.dim}).fill_normal(3);
    out = Tensor(c.out_dtype, {rows, heads, c.dim}), lse = Tensor(DType::kF32, {rows, heads});
    out.poison(0xff), lse.poison(0xff);
    make_tables(pages);
  }
  CascadeProblem(const CascadeProblem&) = delete;

  // The reference's values; each merge is one more fold.
  reference::AttentionValues expected(reference::Products products) const {
    reference::AttentionValues want = reference::attention(flat, products);
    for (auto* values : {&want.out, &want.lse})
      for (auto& x : *values) x.bound *= double(levels.size());
    return want;
  }

 private:
  int64_t pages_of(int64_t kv_len) const { return (kv_len + c.page_size - 1) / c.page_size; }

  void make_tables(int64_t num_pages) {
    std::vector<int64_t> order(static_cast<size_t>(num_pages));
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(5));
    auto take = [&, at = order.begin()](int64_t kv_len) mutable {
      const auto begin = at;
      return std::vector<int64_t>(begin, at += pages_of(kv_len));
    };
    const auto last_of = [&](int64_t kv_len) { return kv_len == 0 ? 1 : (kv_len - 1) % c.page_size + 1; };
    std::vector<std::vector<int64_t>> all(c.own.size());  // each request's pages
    std::vector<CascadeTable> made;
    for (const auto& level : c.shared) {
      CascadeTable& t = made.emplace_back();
      size_t request = 0;
      for (const auto& [requests, kv_len] : level) {
        const std::vector<int64_t> pages = take(kv_len);
        int64_t rows = 0;
        for (int64_t i = 0; i < requests; ++i, ++request) {
          rows += c.own[request].first;
          all[request].insert(all[request].end(), pages.begin(), pages.end());
        }
        t.add(rows, pages, last_of(kv_len));
      }
    }
    CascadeTable own, whole;
    for (size_t i = 0; i < c.own.size(); ++i) {
      const auto& [qo_len, kv_len] = c.own[i];
      const std::vector<int64_t> pages = take(kv_len);
      all[i].insert(all[i].end(), pages.begin(), pages.end());
      own.add(qo_len, pages, last_of(kv_len));
      whole.add(qo_len, all[i], kv_len > 0 || all[i].empty() ? last_of(kv_len) : c.page_size);
    }
    made.push_back(own), made.push_back(whole);
    for (const CascadeTable& t : made)
      for (const std::vector<int64_t>* x : {&t.qo, &t.kv, &t.ids, &t.last})
        tables.emplace_back(DType::kI32, std::vector<int64_t>{int64_t(x->size())}).fill([x](int64_t i) {
          return double((*x)[size_t(i)]);
        });
    for (size_t i = 0; i < made.size(); ++i) levels.push_back(args(&tables[4 * i], i + 2 >= made.size()));
    flat = levels.back(), levels.pop_back();
  }

  AttentionArgs args(Tensor* t, bool is_last) {
    AttentionArgs a{.q = q, .k = k, .v = v, .qo_indptr = t[0], .kv_indptr = t[1]};
    a.kv_indices = t[2], a.last_page_len = t[3], a.out = out, a.lse = lse;
    a.options.causal = c.causal && is_last;
    return a;
  }
};

}  // namespace fulmen::testing
