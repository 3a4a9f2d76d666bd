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
//   sink     a backend may keep the keys' sums relative to their own maximum M' and multiply them by exp2(M' - sink) in
//            the end, which it may take for 0 where it is subnormal. What is lost is Σ_j p_j v_jc: less than 2^-126
//            Σ_j exp2(s_j - M') |v_jc|, but of any size beside the row's own value. Where M' is not that far below the
//            sink, the bound has no such term; a factor of 2 stands for the error of M'
//   lse      Σ_j p_j E_j + A + u (2 ln d + 4 |lse|)
// A variant without softmax sums w_j v_j as they are: out_c errs by Σ_j e_j |v_jc| + (A + R) Σ_j |w_j v_jc|, e_j: what
// the logit's error makes of the weight, and 8 roundings of the variant's own; lse is 0, or -inf where no key is seen.
// The last word of a variant with kFinishes is a function of (Σ w_j v_j, m, d): its bound is how far it moves where
// each of them moves by its own error, and 32 roundings of its own.
#pragma once
#include <fulmen/attention/variant.h>
#include <fulmen/ops/attention.h>
#include <fulmen/reference/attention_tables.h>
#include <fulmen/reference/bounded.h>

#include <optional>
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

struct Softmax {};
struct Division {};

// What a variant is to the oracle: z(row, j, x) in natural-log units, the rounding that f32 adds to it, and visibility;
// weight(row, j, z) where there is no softmax; finish(row, sum), if it has the last word.
template <class Sees, class Logit, class Rounding, class Weight = Softmax, class Finish = Division>
struct Model {
  Sees sees;
  Logit logit;
  Rounding rounding;
  Weight weight = {};
  Finish finish = {};
  static constexpr bool kSoftmax = std::is_same_v<Weight, Softmax>;
  static constexpr bool kFinishes = !std::is_same_v<Finish, Division>;
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
  const bool may_lose_keys = sink != nullptr && top - *sink * kLog2e < -125;
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
    if (may_lose_keys) bound += magnitude;
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

// A row's sums: Σ w_j v_jc = o exp2(m), Σ w_j = d exp2(m). Without softmax m = 0, and d says whether there is a key.
struct Sums {
  double o, m, d;
};

// The variant's last word on one row, and its bound.
template <class M>
void finish_by(const AttentionArgs& a, const M& model, const fulmen::attention::Row& row, std::vector<Term>& terms,
               const Vectors& v, int64_t d_vo, Products products, Bounded* out, Bounded* lse) {
  constexpr double u = kUnit;
  const double n = double(terms.size()), out_scale = double(a.options.v_scale);
  const double sums = sum_error(n) * (products == Products::kHalf ? 2 : 1), R = weight_rounding(a, products);
  const double subnormal = products == Products::kHalf && a.q.dtype == DType::kF16 ? 0x1p-25 : 0x1p-126;
  Sums is{0, M::kSoftmax ? -INFINITY : 0, terms.empty() ? 0.0 : 1.0}, error{0, 0, 0};
  if constexpr (M::kSoftmax) {
    is.d = 0;
    for (const Term& t : terms) is.m = std::max(is.m, t.s);
    for (Term& t : terms) {
      is.d += t.weight = std::exp2(t.s - is.m);
      t.error = std::expm1(kLn2 * (t.error + u * (is.m - t.s)) + 2 * u + 3 * sum_error(n / 16 + 64)) * t.weight;
      error.d += t.error;
    }
    error.d += sums * is.d;
    error.m = terms.empty() ? 0 : 4 * u * (1 + std::abs(is.m));
  }
  const double scale = a.options.lse_base == LogBase::k2 ? 1 : kLn2;
  const auto moved = [&](const Sums& at, const Sums& value) {
    const Sums other = model.finish(row, at);
    return Sums{std::abs(other.o - value.o), 0, at.d > 0 ? std::abs(other.m + std::log2(other.d) - value.m) : 0};
  };
  for (int64_t c = 0; c < d_vo; ++c) {
    is.o = error.o = 0;
    for (const Term& t : terms) {
      const double x = v.x[size_t(t.j * d_vo + c)];
      is.o += t.weight * x;
      error.o += (t.error + (sums + R + 4 * u) * std::abs(t.weight) + subnormal) * std::abs(x);
    }
    const Sums got = model.finish(row, is);
    const Sums value{got.o, got.m + std::log2(got.d), 0};  // m: the logarithm
    double bound = 32 * u * std::abs(got.o) + 0x1p-126, lse_bound = 8 * u * (1 + std::abs(value.m));
    for (double sign : {-1.0, 1.0}) {
      for (const Sums& at : {Sums{is.o + sign * error.o, is.m, is.d}, Sums{is.o, is.m + sign * error.m, is.d},
                             Sums{is.o, is.m, is.d + sign * error.d}}) {
        const Sums by = moved(at, {value.o, value.m, 0});
        bound += by.o, lse_bound += by.d;
      }
    }
    out[c] = rounded_to({got.o * out_scale, bound * std::abs(out_scale)}, a.out.dtype);
    *lse = got.d > 0 ? rounded_to({value.m * scale, lse_bound * scale}, DType::kF32) : Bounded{-INFINITY, 0};
  }
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

template <class M, class SinkOf>
AttentionValues attention(const AttentionArgs& a, const M& model, const SinkOf& sink_of, Products products) {
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
          if constexpr (M::kFinishes) {
            finish_by(a, model, row, terms, v, p.d_vo, products, &r.out[size_t(at * p.d_vo)], &r.lse[size_t(at)]);
            continue;
          } else if constexpr (!M::kSoftmax) {
            finish_sum(a, terms, v, p.d_vo, products, &r.out[size_t(at * p.d_vo)], &r.lse[size_t(at)]);
            continue;
          }
          const std::optional<double> sink = sink_of(row);
          finish_row(a, terms, v, p.d_vo, sink ? &*sink : nullptr, products, &r.out[size_t(at * p.d_vo)],
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
template <class Sees, class Logit, class Rounding, class Weight, class Finish>
Model(Sees, Logit, Rounding, Weight, Finish) -> Model<Sees, Logit, Rounding, Weight, Finish>;

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
  const auto sink_of = [&](const Row& r) {
    return a.sinks.defined() ? std::optional<double>(element(a.sinks, r.qo_head)) : std::nullopt;
  };
  return detail::attention(a, detail::Model{sees, logit, rounding}, sink_of, products);
}

// The same for a variant of the user's, evaluated at F = double (update and finish at float, where they are no
// templates). Its own f32 arithmetic may round 8 times.
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
  const auto sink_of = [&](const Row& r) {
    return variant.has_sink() ? std::optional<double>(variant.sink(r)) : std::nullopt;
  };
  const auto weight = [&] {
    if constexpr (V::kSoftmax)
      return detail::Softmax{};
    else
      return [&](const Row& r, int64_t j, double z) { return variant.weight(r, int32_t(j), z); };
  }();
  if constexpr (!V::kFinishes) {
    return detail::attention(a, detail::Model{sees, logit, rounding, weight}, sink_of, products);
  } else {
    const auto finish = [&](const Row& r, const detail::Sums& sums) {
      using F = std::conditional_t < requires(double& x) { variant.update(r, x, x); }
      , double, float > ;
      F m = F(sums.m), d = F(sums.d);
      const F factor = variant.update(r, m, d), o = variant.finish(r, F(sums.o), m, d, factor);
      return detail::Sums{double(o), double(m), double(d)};
    };
    return detail::attention(a, detail::Model{sees, logit, rounding, weight, finish}, sink_of, products);
  }
}

}  // namespace fulmen::reference
