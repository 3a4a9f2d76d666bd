// SPDX-License-Identifier: Apache-2.0
// attention in double, two passes, from the formula of ops/attention.h; tables and options are read here once more, so
// that nothing is shared with the code under test but the argument struct.
//
// Bound, to first order, u = 2^-24, n visible keys, p_j = w_j / Σw:
//   logit    x = q·k errs by sum_error(d) Σ|q_c k_c| (rotated q and k by 4u more per element), the map to log2 units by
//            its slope times that and a few roundings; subtracting the maximum M rounds by u |s_j - M|, and as the
//            running maximum only rises, all rescalings of a term together round no more than that
//   weight   E_j = ln 2 · (error of s_j + u |s_j - M|) + 2u for exp2 + 3u per rescaling
//            where q and k are bf16 a backend may round the weights of V, not those of the denominator, to bf16:
//            R = 2^-8 more in the numerator; and it may take subnormals for 0
//   sums     A = sum_error(n), of numerator and denominator each, in any order
//   out_c    errors of a weight act on both sums: Σ_j p_j E_j |v_jc - out_c| + A (Σ_j p_j |v_jc| + |out_c|) + 4u
//            |out_c| + R Σ_j p_j |v_jc|
//   lse      Σ_j p_j E_j + A + u (2 ln d + 4 |lse|)
// A variant without softmax sums w_j v_j as they are: out_c errs by Σ_j e_j |v_jc| + (A + R) Σ_j |w_j v_jc|, e_j: what
// the logit's error makes of the weight, and 8 roundings of the variant's own; lse is 0, or -inf where no key is seen.
#pragma once
#include <fulmen/attention/variant.h>
#include <fulmen/ops/attention.h>
#include <fulmen/reference/bounded.h>

#include <type_traits>

namespace fulmen::reference {

// What a backend multiplies. kHalf: tensor cores take weights, and q and k that were rotated on the fly, rounded to q's
// 16-bit dtype (R = half its epsilon for any kv dtype, and 2^-25 absolute where weights are subnormal f16), and may
// truncate where they add: twice the error of sums.
enum class Products { kF32, kHalf };

struct AttentionValues {
  Values out, lse;          // [total_q, num_qo_heads, head_dim_vo], [total_q, num_qo_heads]
  std::vector<bool> owned;  // [total_q] rows of some request; the others must not be written
};

namespace detail {

inline constexpr double kLog2e = 1.4426950408889634074, kLn2 = 0.69314718055994530942;
inline int64_t id(const TensorView& t, int64_t i) { return int64_t(element(t, i)); }

struct Softmax {};

// What a variant is to the oracle: z(row, j, x) in natural-log units, the rounding that f32 adds to it, and visibility;
// weight(row, j, z) where there is no softmax.
template <class Sees, class Logit, class Rounding, class Weight = Softmax>
struct Model {
  Sees sees;
  Logit logit;
  Rounding rounding;
  Weight weight = {};
  static constexpr bool kSoftmax = std::is_same_v<Weight, Softmax>;
};

struct Problem {
  const AttentionArgs& a;
  bool paged, hnd, single_row;
  int64_t batch_size, num_qo_heads, num_kv_heads, d_qk, d_vo, total_q, page_size;

  explicit Problem(const AttentionArgs& args) : a(args) {
    paged = a.k.rank == 4;
    hnd = a.options.kv_layout == KvLayout::kHND;
    single_row = a.q.rank == 2;
    d_qk = a.k.shape[a.k.rank - 1];
    d_vo = a.v.shape[a.v.rank - 1];
    num_kv_heads = a.k.shape[a.k.rank - (hnd ? 3 : 2)];
    num_qo_heads = a.q.shape[single_row ? 0 : 1];
    total_q = single_row ? 1 : a.q.shape[0];
    page_size = paged ? a.k.shape[hnd ? 2 : 1] : 1;
    batch_size = a.block_tables.defined() ? a.block_tables.shape[0]
                 : a.kv_indptr.defined()  ? a.kv_indptr.shape[0] - 1
                                          : 1;
  }
  int64_t qo_begin(int64_t b) const { return a.qo_indptr.defined() ? id(a.qo_indptr, b) : b * (total_q / batch_size); }
  int64_t qo_len(int64_t b) const {
    return a.qo_indptr.defined() ? id(a.qo_indptr, b + 1) - id(a.qo_indptr, b) : total_q / batch_size;
  }
  int64_t kv_len(int64_t b) const {
    if (a.seq_lens.defined()) return id(a.seq_lens, b);
    if (!a.kv_indptr.defined()) return a.k.shape[hnd ? 1 : 0];
    const int64_t count = id(a.kv_indptr, b + 1) - id(a.kv_indptr, b);
    return !paged || count == 0 ? count : (count - 1) * page_size + id(a.last_page_len, b);
  }
  // Element c of token t's key or value.
  double kv(const TensorView& x, int64_t b, int64_t t, int64_t head, int64_t c) const {
    const int64_t heads = num_kv_heads, dim = x.shape[x.rank - 1];
    if (!paged) {
      const int64_t token = (a.kv_indptr.defined() ? id(a.kv_indptr, b) : 0) + t;
      return element(x, (hnd ? head * x.shape[1] + token : token * heads + head) * dim + c);
    }
    const int64_t page = a.block_tables.defined() ? id(a.block_tables, b * a.block_tables.shape[1] + t / page_size)
                                                  : id(a.kv_indices, id(a.kv_indptr, b) + t / page_size);
    const int64_t slot = t % page_size;
    return element(
        x, ((hnd ? page * heads + head : page * page_size + slot) * (hnd ? page_size : heads) + (hnd ? slot : head)) *
                   dim +
               c);
  }
};

struct Vectors {  // [n][d] doubles and, beside them, absolute errors
  std::vector<double> x, error;
};

// Half-split rotation of one vector by its position.
inline void rotate(double* x, double* error, int64_t d, double position, const AttentionOptions& o, double rounding) {
  for (int64_t i = 0; i < d / 2; ++i) {
    const double angle = position / double(o.rope_scale) * std::pow(double(o.rope_theta), -2.0 * double(i) / double(d));
    const double lo = x[i], hi = x[i + d / 2], err = 4 * kUnit * (std::abs(lo) + std::abs(hi));
    x[i] = lo * std::cos(angle) - hi * std::sin(angle);
    x[i + d / 2] = hi * std::cos(angle) + lo * std::sin(angle);
    error[i] = err + rounding * (std::abs(x[i]) + 0x1p-14);
    error[i + d / 2] = err + rounding * (std::abs(x[i + d / 2]) + 0x1p-14);
  }
}

struct Term {
  double s, error, weight;  // s: log2 units
  int64_t j;
};

// The relative error that rounding a weight to the input dtype may add; 0 where weights stay in f32.
inline double weight_rounding(const AttentionArgs& a, Products products) {
  const DType q = a.q.dtype;
  if (products == Products::kHalf) return epsilon_of(q) / 2;
  const bool fits = q == DType::kBF16 || q == DType::kE4M3 || q == DType::kE5M2;
  return fits && a.k.dtype == DType::kBF16 && a.options.rope_theta <= 0 ? epsilon_of(DType::kBF16) / 2 : 0;
}

// Softmax of one row's terms and its bound.
inline void finish_row(const AttentionArgs& a, std::vector<Term>& terms, const Vectors& v, int64_t d_vo,
                       const double* sink, Products products, Bounded* out, Bounded* lse) {
  constexpr double u = kUnit;
  double top = -INFINITY;
  for (const Term& t : terms) top = std::max(top, t.s);
  if (sink != nullptr) top = std::max(top, *sink * kLog2e);
  const double n = double(terms.size()), rescalings = n / 16 + 64;
  const bool half = products == Products::kHalf;
  const double A = sum_error(n) * (half ? 2 : 1), subnormal = half && a.q.dtype == DType::kF16 ? 0x1p-25 : 0;
  double d = 0, worst = 0, spread = 0, out_scale = double(a.options.v_scale);
  for (Term& t : terms) d += t.weight = std::exp2(t.s - top);
  const double sink_weight = sink == nullptr ? 0 : std::exp2(*sink * kLog2e - top);
  d += sink_weight;
  const double sink_error =
      sink == nullptr ? 0 : kLn2 * (3 * u * std::abs(*sink * kLog2e) + u * (top - *sink * kLog2e)) + 4 * u;
  for (Term& t : terms) {
    t.error = kLn2 * (t.error + u * (top - t.s)) + 2 * u + 3 * sum_error(rescalings);
    t.weight /= d;
    worst = std::max(worst, t.error);
    spread += t.weight * t.error;
  }
  const double second_order = std::exp(4 * worst), R = weight_rounding(a, products);
  for (int64_t c = 0; c < d_vo; ++c) {
    double value = 0, magnitude = 0, bound = 0;
    for (const Term& t : terms) value += t.weight * v.x[size_t(t.j * d_vo + c)];
    for (const Term& t : terms) {
      const double x = v.x[size_t(t.j * d_vo + c)];
      magnitude += t.weight * std::abs(x);
      bound += t.weight * t.error * std::abs(x - value) + subnormal * std::abs(x) / std::max(d, 1.0);
    }
    bound += sink_weight / std::max(d, 1e-300) * sink_error * std::abs(value);
    bound += A * (magnitude + std::abs(value)) + 4 * u * std::abs(value) + 0x1p-126 * n * magnitude;
    bound += R > 0 ? R * magnitude + 0x1p-126 : 0;
    out[c] = rounded_to({value * out_scale, bound * std::abs(out_scale) * second_order}, a.out.dtype);
  }
  const double scale = a.options.lse_base == LogBase::k2 ? kLog2e : 1, natural = top * kLn2 + std::log(d);
  const double lse_bound =
      spread + (d > 0 ? sink_weight / d * sink_error : 0) + A + u * (2 * std::abs(std::log(d)) + 4 * std::abs(natural));
  *lse = d > 0 ? rounded_to({natural * scale, lse_bound * scale * second_order}, DType::kF32) : Bounded{-INFINITY, 0};
}

// Sum of one row's terms, each with its weight and the weight's error, and its bound.
inline void finish_sum(const AttentionArgs& a, const std::vector<Term>& terms, const Vectors& v, int64_t d_vo,
                       Products products, Bounded* out, Bounded* lse) {
  const double sums = sum_error(double(terms.size())) * (products == Products::kHalf ? 2 : 1);
  const double relative = sums + weight_rounding(a, products) + 4 * kUnit;
  const double scale = double(a.options.v_scale);
  for (int64_t c = 0; c < d_vo; ++c) {
    double value = 0, bound = 0;
    for (const Term& t : terms) {
      const double x = v.x[size_t(t.j * d_vo + c)];
      value += t.weight * x;
      bound += (t.error + relative * std::abs(t.weight) + 0x1p-126) * std::abs(x) + 0x1p-126;
    }
    out[c] = rounded_to({value * scale, bound * std::abs(scale)}, a.out.dtype);
  }
  *lse = terms.empty() ? Bounded{-INFINITY, 0} : Bounded{0, 0};
}

// What key j, row j of k, contributes to a row with query q.
template <class M>
Term term_of(const AttentionArgs& a, const M& model, const fulmen::attention::Row& row, int64_t j, const Vectors& q,
             const Vectors& k, Products products) {
  const size_t d = q.x.size();
  double x = 0, magnitude = 0, error = 0;
  for (size_t c = 0; c < d; ++c) {
    const double kc = k.x[size_t(j) * d + c], qc = q.x[c];
    x += qc * kc;
    magnitude += std::abs(qc * kc);
    error += std::abs(qc) * k.error[size_t(j) * d + c] + std::abs(kc) * q.error[c];
  }
  error += sum_error(double(d)) * magnitude * (products == Products::kHalf ? 2 : 1);
  if (weight_rounding(a, products) > 0) error += 0x1p-120 * double(d);  // subnormal inputs times what is not huge
  const double z = model.logit(row, j, x);
  const double slope =
      std::max(std::abs(model.logit(row, j, x + error) - z), std::abs(model.logit(row, j, x - error) - z));
  const double e = slope + model.rounding(row, j, x, z);
  if constexpr (M::kSoftmax) {
    return {z * kLog2e, e * kLog2e + 2 * kUnit * std::abs(z * kLog2e), 0, j};
  } else {
    const double w = model.weight(row, j, z);
    const double apart = std::max(std::abs(model.weight(row, j, z + e) - w), std::abs(model.weight(row, j, z - e) - w));
    return {z, apart + 8 * kUnit * std::abs(w), w, j};
  }
}

template <class M>
AttentionValues attention(const AttentionArgs& a, const M& model, bool add_sinks, Products products) {
  const Problem p(a);
  AttentionValues r;
  r.out.assign(size_t(p.total_q * p.num_qo_heads * p.d_vo), {NAN, 0});
  r.lse.assign(size_t(p.total_q * p.num_qo_heads), {NAN, 0});
  r.owned.assign(size_t(p.total_q), false);
  const int64_t group = p.num_qo_heads / p.num_kv_heads;
  const double rounding = products == Products::kHalf ? epsilon_of(a.q.dtype) / 2 : 0;
  std::vector<Term> terms;
  for (int64_t b = 0; b < p.batch_size; ++b) {
    const int64_t qo_len = p.qo_len(b), kv_len = p.kv_len(b);
    for (int64_t head = 0; head < p.num_kv_heads; ++head) {
      Vectors k, v;
      k.x.resize(size_t(kv_len * p.d_qk));
      k.error.resize(k.x.size());
      v.x.resize(size_t(kv_len * p.d_vo));
      for (int64_t t = 0; t < kv_len; ++t) {
        for (int64_t c = 0; c < p.d_qk; ++c) k.x[size_t(t * p.d_qk + c)] = p.kv(a.k, b, t, head, c);
        for (int64_t c = 0; c < p.d_vo; ++c) v.x[size_t(t * p.d_vo + c)] = p.kv(a.v, b, t, head, c);
        if (a.options.rope_theta > 0)
          rotate(&k.x[size_t(t * p.d_qk)], &k.error[size_t(t * p.d_qk)], p.d_qk, double(t), a.options, rounding);
      }
      for (int64_t i = 0; i < qo_len; ++i) {
        const int64_t row_idx = p.qo_begin(b) + i;
        r.owned[size_t(row_idx)] = true;
        for (int64_t g = 0; g < group; ++g) {
          const int64_t h = head * group + g, at = row_idx * p.num_qo_heads + h;
          const fulmen::attention::Row row{int32_t(b),    int32_t(i),      int32_t(h),
                                           int32_t(head), int32_t(qo_len), int32_t(kv_len)};
          Vectors q{std::vector<double>(size_t(p.d_qk)), std::vector<double>(size_t(p.d_qk), 0)};
          for (int64_t c = 0; c < p.d_qk; ++c) q.x[size_t(c)] = element(a.q, at * p.d_qk + c);
          if (a.options.rope_theta > 0)
            rotate(q.x.data(), q.error.data(), p.d_qk, double(kv_len - qo_len + i), a.options, rounding);
          terms.clear();
          for (int64_t j = 0; j < kv_len; ++j)
            if (model.sees(row, j)) terms.push_back(term_of(a, model, row, j, q, k, products));
          if constexpr (!M::kSoftmax) {
            finish_sum(a, terms, v, p.d_vo, products, &r.out[size_t(at * p.d_vo)], &r.lse[size_t(at)]);
            continue;
          }
          const double sink = add_sinks ? element(a.sinks, h) : 0;
          finish_row(a, terms, v, p.d_vo, add_sinks ? &sink : nullptr, products, &r.out[size_t(at * p.d_vo)],
                     &r.lse[size_t(at)]);
        }
      }
    }
  }
  return r;
}

template <class Sees, class Logit, class Rounding>
Model(Sees, Logit, Rounding) -> Model<Sees, Logit, Rounding>;
template <class Sees, class Logit, class Rounding, class Weight>
Model(Sees, Logit, Rounding, Weight) -> Model<Sees, Logit, Rounding, Weight>;

}  // namespace detail

// The options of the call, from the formula.
inline AttentionValues attention(const AttentionArgs& a, Products products = Products::kF32) {
  using fulmen::attention::Row;
  const AttentionOptions& o = a.options;
  const detail::Problem p(a);
  const bool default_scale = o.sm_scale != o.sm_scale || o.sm_scale == 0;
  const double scale =
      (default_scale ? 1 / std::sqrt(double(p.d_qk)) : double(o.sm_scale)) * double(o.q_scale) * double(o.k_scale);
  const double cap = double(o.logits_soft_cap);
  const auto sees = [&](const Row& r, int64_t j) {
    if (o.window_left >= 0 && j + r.qo_len + o.window_left < r.kv_len + int64_t(r.qo_idx)) return false;
    if (!a.custom_mask.defined()) return !o.causal || j + r.qo_len <= int64_t(r.kv_len) + r.qo_idx;
    const int64_t bit = int64_t(r.qo_idx) * r.kv_len + j;
    const int64_t byte = (a.mask_indptr.defined() ? detail::id(a.mask_indptr, r.batch_idx) : 0) + bit / 8;
    return (detail::id(a.custom_mask, byte) >> (bit % 8) & 1) != 0;
  };
  const auto bias = [&](const Row& r, int64_t j) {
    return a.alibi_slopes.defined() ? element(a.alibi_slopes, r.qo_head) * double(j - r.qo_idx) : 0;
  };
  const auto logit = [&](const Row& r, int64_t j, double x) {
    const double z = x * scale;
    return (cap > 0 ? cap * std::tanh(z / cap) : z) + bias(r, j);
  };
  // The scale is a product of up to four rounded factors; tanh errs by 2 units of cap.
  const auto rounding = [&](const Row& r, int64_t j, double x, double z) {
    return kUnit * (5 * std::abs(x * scale) + (cap > 0 ? 3 * cap : 0) + 2 * std::abs(bias(r, j)) + 2 * std::abs(z));
  };
  return detail::attention(a, detail::Model{sees, logit, rounding}, a.sinks.defined(), products);
}

// The same for a variant of the user's, evaluated at F = double. Its own f32 arithmetic may round 8 times.
template <class V>
AttentionValues attention(const AttentionArgs& a, const V& variant, Products products = Products::kF32) {
  using fulmen::attention::Row;
  const auto sees = [&](const Row& r, int64_t j) {
    const fulmen::attention::KvRange seen = variant.visible(r);
    return j >= seen.begin && j < seen.end && (!variant.has_mask() || bool(variant.keep(r, int32_t(j))));
  };
  double scale = 1;
  if constexpr (V::kSoftmax) scale = double(variant.scale_log2()) * detail::kLn2;
  const auto logit = [&](const Row& r, int64_t j, double x) { return scale * variant.logit(r, int32_t(j), x); };
  const auto rounding = [&](const Row&, int64_t, double x, double z) {
    return 8 * kUnit * (std::abs(z) + std::abs(scale * x));
  };
  if constexpr (V::kSoftmax) {
    return detail::attention(a, detail::Model{sees, logit, rounding}, false, products);
  } else {
    const auto weight = [&](const Row& r, int64_t j, double z) { return variant.weight(r, int32_t(j), z); };
    return detail::attention(a, detail::Model{sees, logit, rounding, weight}, false, products);
  }
}

}  // namespace fulmen::reference
