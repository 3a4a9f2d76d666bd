// SPDX-License-Identifier: Apache-2.0
// attend_block against attention in double, at the level that FULMEN_CPU_LEVEL_ID names: element types, head dims,
// group sizes, page sizes, tails, masks, transforms, rotation, splits. Every slot that the request does not own is NaN.
#include <fulmen/attention/variants.h>
#include <fulmen/cpu/attention/block.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace fulmen {
namespace {

namespace level = cpu::FULMEN_CPU_NS;
using attention::KvRange, attention::Row, attention::Standard, attention::State;

struct Shape {
  int32_t qo_len, kv_len, group_size, head_dim_qk, head_dim_vo, page_size;  // page_size 0: contiguous
  bool wide_ids = false;
  KvRange kv = {0, 1 << 30};
};

struct Aligned {
  void* p;
  explicit Aligned(int64_t bytes) : p(std::aligned_alloc(64, size_t(bytes + 127) / 64 * 64)) {}
  ~Aligned() { std::free(p); }
};

template <class T>
struct Problem {
  Shape shape;
  std::vector<Row> rows;
  std::vector<float> q;  // [rows][padded]
  std::vector<T> k, v;   // two kv heads, NHD, the second is ours
  std::vector<int32_t> ids;
  std::vector<int64_t> wide_ids;
  level::KvRows<T> k_rows, v_rows;
  level::QueryBlock block;

  static void place(const Shape& s, int32_t head_dim, std::vector<T>& data, level::KvRows<T>& rows, int32_t num_pages,
                    std::mt19937& random, const std::vector<int32_t>& ids) {
    std::normal_distribution<float> normal;
    const int32_t page_size = s.page_size == 0 ? s.kv_len : s.page_size, heads = 2;
    data.assign(size_t(num_pages) * page_size * heads * head_dim, from_f32<T>(std::nanf("")));
    rows.base = data.data() + head_dim;
    rows.stride_token = heads * head_dim, rows.stride_page = int64_t(page_size) * heads * head_dim;
    rows.page_size = page_size;
    for (int32_t t = 0; t < s.kv_len; ++t) {
      const int64_t page = s.page_size == 0 ? 0 : ids[size_t(t / page_size)];
      T* row = data.data() + head_dim + page * rows.stride_page + (t % page_size) * rows.stride_token;
      for (int32_t i = 0; i < head_dim; ++i) row[i] = from_f32<T>(normal(random));
    }
  }

  explicit Problem(const Shape& s, uint32_t seed = 1) : shape(s) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const int32_t pages = s.page_size == 0 ? 1 : (s.kv_len + s.page_size - 1) / s.page_size + 3;
    ids.resize(size_t(pages));
    std::iota(ids.begin(), ids.end(), 0);
    std::shuffle(ids.begin(), ids.end(), random);
    wide_ids.assign(ids.begin(), ids.end());
    place(s, s.head_dim_qk, k, k_rows, pages, random, ids);
    place(s, s.head_dim_vo, v, v_rows, pages, random, ids);
    for (auto* r : {&k_rows, &v_rows}) {
      r->wide_ids = s.wide_ids;
      if (s.page_size > 0) r->page_ids = s.wide_ids ? static_cast<const void*>(wide_ids.data()) : ids.data();
    }
    const int32_t width = level::padded_head_dim(s.head_dim_qk);
    for (int32_t i = 0; i < s.qo_len; ++i) {
      for (int32_t h = 0; h < s.group_size; ++h) {
        rows.push_back({0, i, s.group_size + h, 1, s.qo_len, s.kv_len});
        for (int32_t d = 0; d < width; ++d) q.push_back(d < s.head_dim_qk ? to_f32(to_bf16(normal(random))) : 0.f);
      }
    }
    block = {q.data(), rows.data(), width, int32_t(rows.size()), s.head_dim_qk, s.head_dim_vo, 1, false};
  }
};

struct Result {
  std::vector<State<float>> state;
  std::vector<float> o;
  int32_t width;
};

template <class T, class V>
Result run(const Problem<T>& p, const V& variant, KvRange kv, const level::KeyRope& rope = {}) {
  Result r;
  r.width = level::padded_head_dim(p.shape.head_dim_vo);
  r.state.resize(p.rows.size());
  r.o.assign(p.rows.size() * size_t(r.width) + 32, -77.f);
  const int64_t bytes = level::block_scratch_bytes(p.block.num_rows, p.block.head_dim_qk, p.block.head_dim_vo);
  Aligned scratch(bytes);
  std::fill_n(static_cast<uint8_t*>(scratch.p), bytes + 64, uint8_t(0xff));
  level::attend_block(variant, p.block, p.k_rows, p.v_rows, kv, rope, scratch.p, {r.state.data(), r.o.data(), r.width});
  for (int64_t i = bytes; i < bytes + 64; ++i)
    EXPECT_EQ(static_cast<uint8_t*>(scratch.p)[i], 0xff) << "scratch overrun";
  for (size_t i = p.rows.size() * size_t(r.width); i < r.o.size(); ++i) EXPECT_EQ(r.o[i], -77.f) << "output overrun";
  return r;
}

// Compares o / d and the log-sum-exp with the formula in double. tolerance: per unit of |v|, of the order of 1.
template <class T, class V>
void check(const Problem<T>& p, const V& variant, KvRange kv, const Result& got, double tolerance,
           const level::KeyRope& rope = {}) {
  const Shape& s = p.shape;
  for (size_t r = 0; r < p.rows.size(); ++r) {
    const Row row = p.rows[r];
    const KvRange in = variant.visible(row);
    std::vector<double> o(size_t(s.head_dim_vo)), z;
    std::vector<int32_t> seen;
    for (int32_t j = std::max(in.begin, kv.begin); j < std::min(in.end, kv.end); ++j) {
      if (variant.has_mask() && !variant.keep(row, j)) continue;
      std::vector<double> k(size_t(s.head_dim_qk));
      for (int32_t d = 0; d < s.head_dim_qk; ++d) k[size_t(d)] = to_f32(p.k_rows.row(j)[d]);
      for (int32_t i = 0, half = rope.rotary_dim / 2; i < half; ++i) {
        const double c = rope.cos[j * half + i], sn = rope.sin[j * half + i], x = k[size_t(i)], y = k[size_t(i + half)];
        k[size_t(i)] = x * c - y * sn, k[size_t(i + half)] = y * c + x * sn;
      }
      double dot = 0;
      for (int32_t d = 0; d < s.head_dim_qk; ++d)
        dot += double(p.q[r * size_t(p.block.q_stride) + size_t(d)]) * k[size_t(d)];
      z.push_back(variant.logit(row, j, dot) * double(variant.scale_log2()));
      seen.push_back(j);
    }
    if (seen.empty()) {
      EXPECT_EQ(got.state[r].m, -INFINITY);
      EXPECT_EQ(got.state[r].d, 0.f);
      for (int32_t d = 0; d < got.width; ++d) ASSERT_EQ(got.o[r * size_t(got.width) + size_t(d)], 0.f);
      continue;
    }
    const double top = *std::max_element(z.begin(), z.end());
    double sum = 0;
    for (size_t i = 0; i < z.size(); ++i) {
      const double w = std::exp2(z[i] - top);
      sum += w;
      for (int32_t d = 0; d < s.head_dim_vo; ++d) o[size_t(d)] += w * double(to_f32(p.v_rows.row(seen[i])[d]));
    }
    ASSERT_NEAR(got.state[r].lse_log2(), top + std::log2(sum), tolerance * (1 + std::fabs(top))) << "row " << r;
    for (int32_t d = 0; d < s.head_dim_vo; ++d) {
      ASSERT_NEAR(got.o[r * size_t(got.width) + size_t(d)] / got.state[r].d, o[size_t(d)] / sum, tolerance)
          << "row " << r << " column " << d;
    }
    for (int32_t d = s.head_dim_vo; d < got.width; ++d) ASSERT_EQ(got.o[r * size_t(got.width) + size_t(d)], 0.f);
  }
}

std::string text(const Shape& s) {
  return "qo " + std::to_string(s.qo_len) + " kv " + std::to_string(s.kv_len) + " group " +
         std::to_string(s.group_size) + " d " + std::to_string(s.head_dim_qk) + "/" + std::to_string(s.head_dim_vo) +
         " page " + std::to_string(s.page_size);
}

Standard plain(const Shape& s) {
  Standard v;
  v.sm_scale = float(1 / std::sqrt(double(s.head_dim_qk)));
  return v;
}

template <class T, class V>
void expect_right(Problem<T>& p, const V& variant, const level::KeyRope& rope = {}) {
  SCOPED_TRACE(text(p.shape));
  const KvRange kv = {std::min(p.shape.kv.begin, p.shape.kv_len), std::min(p.shape.kv.end, p.shape.kv_len)};
  for (bool dot : {false, true}) {
    if (dot && !(level::kHasBf16Dot && std::is_same_v<T, bf16>)) break;
    p.block.use_bf16_dot = dot;
    const Result once = run(p, variant, kv, rope), again = run(p, variant, kv, rope);
    check(p, variant, kv, once, dot ? 0.01 : 2e-5, rope);
    EXPECT_EQ(once.o, again.o) << "not deterministic";
  }
}

template <class T>
void shapes_of_type() {
  for (int32_t head_dim : {8, 40, 64, 72, 80, 96, 128, 192, 256, 576}) {
    for (int32_t group : {1, 3, 4, 5, 8, 17}) {
      Problem<T> p(
          {1 + (head_dim + group) % 4, 77 + head_dim % 61, group, head_dim, head_dim == 576 ? 512 : head_dim, 16});
      Standard v = plain(p.shape);
      v.causal = group % 2 == 0;
      expect_right(p, v);
    }
  }
}
TEST(AttendBlock, Float) { shapes_of_type<float>(); }
TEST(AttendBlock, F16) { shapes_of_type<f16>(); }
TEST(AttendBlock, BF16) { shapes_of_type<bf16>(); }
TEST(AttendBlock, E4M3) { shapes_of_type<e4m3>(); }
TEST(AttendBlock, E5M2) { shapes_of_type<e5m2>(); }

TEST(AttendBlock, GroupsPagesAndLengths) {
  for (int32_t group = 1; group <= 17; ++group) {
    for (int32_t page : {0, 1, 3, 16}) {
      for (int32_t kv_len : {1, 2, 15, 64, 65, 131, 300}) {
        Problem<bf16> p({1 + group % 3, kv_len, group, 64, 40, page, page == 3}, uint32_t(kv_len));
        Standard v = plain(p.shape);
        v.causal = true;
        expect_right(p, v);
      }
    }
  }
}

TEST(AttendBlock, CausalAndWindows) {
  for (int32_t qo_len : {1, 7, 33, 150}) {
    for (int32_t kv_len : {3, 33, 150, 400}) {
      for (int32_t window : {-1, 0, 5, 130}) {
        Problem<f16> p({qo_len, kv_len, 3, 32, 64, 16});
        Standard v = plain(p.shape);
        v.causal = true, v.window_left = window;
        expect_right(p, v);
      }
    }
  }
}

TEST(AttendBlock, TransformsAndMask) {
  for (int32_t qo_len : {2, 50}) {
    Problem<bf16> p({qo_len, 205, 3, 72, 80, 3});
    Standard v = plain(p.shape);
    const std::vector<float> slopes = {0, 0, 0, 0.5f, 0.25f, 0.01f};
    v.logits_soft_cap = 3;
    expect_right(p, v);
    v.alibi_slopes = slopes.data();
    expect_right(p, v);
    v = plain(p.shape);
    std::mt19937 random(5);
    std::vector<uint8_t> bits(size_t(qo_len * p.shape.kv_len + 7) / 8 + 3);
    for (uint8_t& b : bits) b = uint8_t(random());
    for (int32_t j = 0; j < p.shape.kv_len; ++j)
      bits[size_t(3 + j / 8)] &= uint8_t(~(1u << j % 8));  // row 0 sees nothing
    const int32_t indptr[] = {3, int32_t(bits.size())};
    v.custom_mask = bits.data(), v.mask_indptr = indptr;
    expect_right(p, v);
    v.window_left = 100;
    expect_right(p, v);
  }
}

struct EveryThird : attention::Defaults {
  float scale_log2() const { return 0.2f; }
  bool has_mask() const { return true; }
  bool changes_logits() const { return true; }
  bool keep(Row row, int32_t j) const { return (j + row.qo_idx) % 3 == 0; }
  template <class F, class I>
  F logit(Row row, I j, F x) const {
    using math::cast_to, math::tanh;
    return tanh(x) * F(3) + cast_to(F(), j - I(row.qo_idx)) * F(0.001f);
  }
};
TEST(AttendBlock, UserVariant) {
  for (int32_t qo_len : {1, 40}) {
    Problem<float> p({qo_len, 140, 2, 64, 64, 16});
    expect_right(p, EveryThird{});
  }
}

struct Linear : attention::Defaults {
  static constexpr bool kSoftmax = false;
  float scale_log2() const { return 1; }
  template <class F, class I>
  F weight(Row, I, F z) const {
    return z * F(0.5f);
  }
};
TEST(AttendBlock, WeightsWithoutSoftmaxAdd) {
  for (int32_t qo_len : {1, 40}) {
    Problem<float> p({qo_len, 141, 2, 64, 24, 16});
    const Result got = run(p, Linear{}, {0, 141});
    for (size_t r = 0; r < p.rows.size(); ++r) {
      double want = 0;
      for (int32_t j = 0; j < 141; ++j) {
        double dot = 0;
        for (int32_t d = 0; d < 64; ++d) dot += double(p.q[r * 64 + size_t(d)]) * p.k_rows.row(j)[d];
        want += dot / 2 * p.v_rows.row(j)[7];
      }
      ASSERT_NEAR(got.o[r * 32 + 7], want, 1e-2);
    }
  }
}

TEST(AttendBlock, RotatesKeys) {
  for (int32_t qo_len : {1, 30}) {
    for (int32_t rotary : {64, 48}) {
      Problem<bf16> p({qo_len, 200, 2, 64, 64, 16});
      std::vector<float> cos, sin;
      for (int32_t i = 0; i < 200 * rotary / 2; ++i) {
        cos.push_back(std::cos(float(i))), sin.push_back(std::sin(float(i)));
      }
      expect_right(p, plain(p.shape), {cos.data(), sin.data(), rotary});
    }
  }
}

TEST(AttendBlock, SplitsMerge) {
  for (int32_t qo_len : {1, 40}) {
    Problem<bf16> p({qo_len, 500, 4, 128, 128, 16});
    Standard v = plain(p.shape);
    v.causal = true;
    Result sum = run(p, v, {0, 0});
    check(p, v, {0, 0}, sum, 0);
    for (int32_t begin = 0; begin < 500; begin += 170) {
      const Result part = run(p, v, {begin, std::min(begin + 170, 500)});
      for (size_t r = 0; r < p.rows.size(); ++r) {
        const auto factors = sum.state[r].merge(part.state[r]);
        for (size_t d = 0; d < 128; ++d)
          sum.o[r * 128 + d] = factors.keep * sum.o[r * 128 + d] + factors.add * part.o[r * 128 + d];
      }
    }
    check(p, v, {0, 500}, sum, 2e-5);
  }
}

// Two kv heads in one call give the same bits as one call per head.
TEST(AttendBlock, SpansHeads) {
  for (int32_t qo_len : {1, 20}) {
    Problem<bf16> p({qo_len, 200, 3, 64, 96, 16}), first({qo_len, 200, 3, 64, 96, 16}, 2);
    for (int32_t t = 0; t < 200; ++t) {
      std::copy_n(first.k_rows.row(t), 64, const_cast<bf16*>(p.k_rows.row(t)) - 64);
      std::copy_n(first.v_rows.row(t), 96, const_cast<bf16*>(p.v_rows.row(t)) - 96);
    }
    first.k_rows = p.k_rows, first.v_rows = p.v_rows;
    first.k_rows.base -= 64, first.v_rows.base -= 96;
    const Standard v = plain(p.shape);
    const Result one = run(first, v, {0, 200}), other = run(p, v, {0, 200});
    std::vector<Row> rows = first.rows;
    rows.insert(rows.end(), p.rows.begin(), p.rows.end());
    std::vector<float> q = first.q, o(2 * p.rows.size() * 96);
    q.insert(q.end(), p.q.begin(), p.q.end());
    std::vector<State<float>> state(rows.size());
    level::QueryBlock both = first.block;
    both.rows = rows.data(), both.q = q.data(), both.num_kv_heads = 2;
    level::KvRows<bf16> k = first.k_rows, values = first.v_rows;
    k.stride_head = 64, values.stride_head = 96;
    Aligned scratch(level::block_scratch_bytes(both.num_rows, 64, 96, 2));
    level::attend_block(v, both, k, values, {0, 200}, {}, scratch.p, {state.data(), o.data(), 96});
    const size_t half = o.size() / 2;
    EXPECT_TRUE(std::equal(o.begin(), o.begin() + int64_t(half), one.o.begin()));
    EXPECT_TRUE(std::equal(o.begin() + int64_t(half), o.end(), other.o.begin()));
  }
}

TEST(AttendBlock, HugeLogitsDoNotOverflow) {
  for (int32_t qo_len : {1, 40}) {
    for (float scale : {3000.f, -3000.f, 0.f}) {
      Problem<float> p({qo_len, 150, 4, 64, 64, 16});
      Standard v;
      v.sm_scale = scale, v.causal = true;
      const Result got = run(p, v, {0, 150});
      for (size_t r = 0; r < p.rows.size(); ++r) {
        EXPECT_GE(got.state[r].d, 0.9f);  // the largest weight is exp2 of one rounding error of m
        for (int32_t d = 0; d < 64; ++d) ASSERT_LT(std::fabs(got.o[r * 64 + size_t(d)] / got.state[r].d), 10.f);
      }
    }
  }
}

}  // namespace
}  // namespace fulmen
