// SPDX-License-Identifier: Apache-2.0
// Variants that are written for FlashInfer, as this library's: the names its users' texts are written in, and Adapted,
// which makes such a struct a variant of attention/variant.h. A text is put into this namespace, after a struct
// Additional with the extra tensors (pointers) and scalars in the order of their declaration, which is also the order
// of their bytes. src/ops/flashinfer_variant.cc prints both.
//
//   REGISTER_LOGITS_TRANSFORM   logit(), of q·k; without softmax its result is the weight
//   REGISTER_LOGITS_MASK        keep()
//   REGISTER_M_D_UPDATE         once per row at its end, on the state (m in log2 units, d) of all keys; kv_tile_idx 0
//   REGISTER_OUTPUT_TRANSFORM   finish(), on each element of the sum of weights times values
//   sm_scale_log2               scale_log2(); a constructor that asks for lengths to set it gets 0
//
// Texts for FlashInfer's backend fa3 are known by their constructor of params and block coordinates: extras are members
// of params.additional_params, and GetAttentionUpdater says scale_log2() (OnlineSoftmax) or that there is no softmax
// (DefaultUpdater). The q_tile_idx, qo_indptr and kv_indptr of the coordinates are 0.
#pragma once
#include <fulmen/attention/state.h>
#include <fulmen/attention/variant.h>
#include <fulmen/core/bf16.h>
#include <fulmen/core/f16.h>

// NOLINTBEGIN: these names are FlashInfer's.
#define REGISTER_QUERY_TRANSFORM(params, q, ...) \
  template <class P_, class T_>                  \
  FULMEN_FN T_ QueryTransform(const P_& params, T_ q) const __VA_ARGS__

#define REGISTER_KEY_TRANSFORM(params, k, ...) \
  template <class P_, class T_>                \
  FULMEN_FN T_ KeyTransform(const P_& params, T_ k) const __VA_ARGS__

#define REGISTER_LOGITS_TRANSFORM(params, logits, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, ...)       \
  static constexpr bool kTransformsLogits = true;                                                                 \
  template <class P_, class T_>                                                                                   \
  FULMEN_FN T_ LogitsTransform(const P_& params, T_ logits, uint32_t batch_idx, uint32_t qo_idx, uint32_t kv_idx, \
                               uint32_t qo_head_idx, uint32_t kv_head_idx) __VA_ARGS__

#define REGISTER_LOGITS_MASK(params, batch_idx, qo_idx, kv_idx, qo_head_idx, kv_head_idx, ...)      \
  static constexpr bool kMasksLogits = true;                                                        \
  template <class P_>                                                                               \
  FULMEN_FN bool LogitsMask(const P_& params, uint32_t batch_idx, uint32_t qo_idx, uint32_t kv_idx, \
                            uint32_t qo_head_idx, uint32_t kv_head_idx) __VA_ARGS__

#define REGISTER_M_D_UPDATE(params, kv_tile_idx, qo_head_idx, m, d, scale, ...)                               \
  static constexpr bool kUpdates = true;                                                                      \
  template <class P_>                                                                                         \
  FULMEN_FN void update_m_d(const P_& params, uint32_t kv_tile_idx, uint32_t qo_head_idx, float& m, float& d, \
                            float& scale) __VA_ARGS__

#define REGISTER_OUTPUT_TRANSFORM(params, output, batch_idx, qo_idx, qo_head_idx, m, d, scale, ...)                    \
  static constexpr bool kTransformsOutput = true;                                                                      \
  template <class P_, class T_>                                                                                        \
  FULMEN_FN T_ OutputTransform(const P_& params, T_ output, uint32_t batch_idx, uint32_t qo_idx, uint32_t qo_head_idx, \
                               float& m, float& d, float scale) __VA_ARGS__

#define DEFINE_HAS_MEMBER(member)                                        \
  template <class P_>                                                    \
  inline constexpr bool has_##member##_v = requires(const P_& params_) { \
    params_.member;                                                      \
  };
// NOLINTEND

namespace fulmen::attention::flashinfer {

namespace math {
inline constexpr float log2e = fulmen::math::kLog2e;
inline constexpr float loge2 = fulmen::math::kLn2;
inline constexpr float inf = kInfinity;
FULMEN_FN float ptx_exp2(float x) { return fulmen::math::exp2(x); }
FULMEN_FN float ptx_log2(float x) { return fulmen::math::log2(x); }
FULMEN_FN float ptx_rcp(float x) { return 1 / x; }
FULMEN_FN float tanh(float x) { return fulmen::math::tanh(x); }
FULMEN_FN float rsqrt(float x) { return fulmen::math::exp2(-0.5f * fulmen::math::log2(x)); }
}  // namespace math

struct AttentionVariantBase {
  static constexpr bool use_softmax = true;
  static constexpr bool kTransformsLogits = false, kMasksLogits = false, kUpdates = false, kTransformsOutput = false;

  template <class P, class T>
  FULMEN_FN T LogitsTransform(const P&, T logits, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t) {
    return logits;
  }
  template <class P>
  FULMEN_FN bool LogitsMask(const P&, uint32_t, uint32_t, uint32_t, uint32_t, uint32_t) {
    return true;
  }
  template <class P>
  FULMEN_FN void update_m_d(const P&, uint32_t, uint32_t, float&, float&, float&) {}
};

// Elements of extra tensors by CUDA's names: they are read as float.
struct half : f16 {
  half() = default;
  FULMEN_FN half(float x) : f16(to_f16(x)) {}
  FULMEN_FN operator float() const { return to_f32(*this); }
};
struct nv_bfloat16 : bf16 {
  nv_bfloat16() = default;
  FULMEN_FN nv_bfloat16(float x) : bf16(to_bf16(x)) {}
  FULMEN_FN operator float() const { return to_f32(*this); }
};
using nv_half = half;
using __half = half;                                           // NOLINT: CUDA's name
using __nv_bfloat16 = nv_bfloat16;                             // NOLINT: CUDA's name
FULMEN_FN float __half2float(half x) { return x; }             // NOLINT: CUDA's name
FULMEN_FN float __bfloat162float(nv_bfloat16 x) { return x; }  // NOLINT: CUDA's name

// What fa3's texts are written with.
struct BlockCoord {
  int q_tile_idx, qo_head_idx, kv_head_idx, qo_indptr, kv_indptr, qo_len, kv_len, batch_idx;
};
template <int kRows, bool kWithScale>
struct OnlineSoftmax {
  static constexpr bool kSoftmax = true;
  float scale_log2;
  FULMEN_FN explicit OnlineSoftmax(float sm_scale_log2) : scale_log2(kWithScale ? sm_scale_log2 : 1) {}
};
template <int kRows>
struct DefaultUpdater {
  static constexpr bool kSoftmax = false;
  float scale_log2 = 1;
};
template <class T>
T& instance();  // for decltype
template <class Theirs>
inline constexpr bool has_updater = requires {
  instance<Theirs>().template GetAttentionUpdater<1>();
};
template <class Theirs>
constexpr bool uses_softmax() {
  if constexpr (has_updater<Theirs>)
    return decltype(instance<Theirs>().template GetAttentionUpdater<1>())::kSoftmax;
  else
    return Theirs::use_softmax;
}

// What a kernel's launch says beside Additional.
struct Launch {
  uint32_t num_qo_heads = 1, num_kv_heads = 1;
  int32_t window_left = -1;
  int32_t causal = 0;
};

// A request's params as their text reads them.
template <class Additional>
struct ParamsOf : Additional {
  uint32_t num_qo_heads = 1, num_kv_heads = 1, group_size = 1, qo_len = 0, kv_len = 0;
  int32_t window_left = -1;
  Additional additional_params;
  FULMEN_FN uint32_t get_qo_len(uint32_t) const { return qo_len; }
  FULMEN_FN uint32_t get_kv_len(uint32_t) const { return kv_len; }
};

template <class Theirs, class Additional>
struct Adapted : Defaults {
  static constexpr bool kSoftmax = uses_softmax<Theirs>();
  static constexpr bool kFinishes = Theirs::kUpdates || Theirs::kTransformsOutput;
  using Params = ParamsOf<Additional>;

  Launch launch;
  Additional additional;

  FULMEN_FN Params params(Row row) const {
    Params p{};
    static_cast<Additional&>(p) = p.additional_params = additional;
    p.num_qo_heads = launch.num_qo_heads, p.num_kv_heads = launch.num_kv_heads;
    p.group_size = launch.num_qo_heads / launch.num_kv_heads;
    p.qo_len = uint32_t(row.qo_len), p.kv_len = uint32_t(row.kv_len), p.window_left = launch.window_left;
    return p;
  }
  FULMEN_FN Theirs theirs(const Params& p, Row row) const {
    const BlockCoord at{0, row.qo_head, row.kv_head, 0, 0, row.qo_len, row.kv_len, row.batch_idx};
    if constexpr (requires { Theirs(p, at); })
      return Theirs(p, at);
    else
      return Theirs(p, uint32_t(row.batch_idx), nullptr);
  }

  FULMEN_FN bool has_mask() const { return Theirs::kMasksLogits; }
  FULMEN_FN bool changes_logits() const { return kSoftmax && Theirs::kTransformsLogits; }
  FULMEN_FN KvRange visible(Row row) const { return {0, launch.causal != 0 ? causal_end(row) : row.kv_len}; }
  FULMEN_FN bool keep(Row row, int32_t kv_idx) const {
    const Params p = params(row);
    return theirs(p, row).LogitsMask(p, uint32_t(row.batch_idx), uint32_t(row.qo_idx), uint32_t(kv_idx),
                                     uint32_t(row.qo_head), uint32_t(row.kv_head));
  }
  FULMEN_FN float transformed(Row row, int32_t kv_idx, float x) const {
    const Params p = params(row);
    return theirs(p, row).LogitsTransform(p, x, uint32_t(row.batch_idx), uint32_t(row.qo_idx), uint32_t(kv_idx),
                                          uint32_t(row.qo_head), uint32_t(row.kv_head));
  }
  template <class F, class I>
  FULMEN_FN F logit(Row row, I kv_idx, F x) const {
    return by_element(x, kv_idx, [&](int32_t j, float y) { return transformed(row, j, y); });
  }
  template <class F, class I>
  FULMEN_FN F weight(Row row, I kv_idx, F x) const {
    return by_element(x, kv_idx, [&](int32_t j, float y) { return transformed(row, j, y); });
  }
  FULMEN_FN float scale_log2() const {
    const Params p = params(Row{});
    Theirs v = theirs(p, Row{});
    if constexpr (has_updater<Theirs>)
      return v.template GetAttentionUpdater<1>().scale_log2;
    else if constexpr (requires { v.sm_scale_log2; })
      return v.sm_scale_log2;
    else
      return 1;
  }
  // The state becomes what the text makes of it; lse follows.
  FULMEN_FN float update(Row row, float& m, float& d) const {
    const Params p = params(row);
    float scale = 1;
    theirs(p, row).update_m_d(p, 0, uint32_t(row.qo_head), m, d, scale);
    return scale;
  }
  FULMEN_FN float finish(Row row, float o, float m, float d, float scale) const {
    if constexpr (Theirs::kTransformsOutput) {
      const Params p = params(row);
      return theirs(p, row).OutputTransform(p, o, uint32_t(row.batch_idx), uint32_t(row.qo_idx), uint32_t(row.qo_head),
                                            m, d, scale);
    }
    return d > 0 ? o * scale / d : 0;
  }

  // The same for one row, whose params and struct are made once: for loops over its keys (cpu/text).
  struct OfRow {
    Params p;
    Theirs theirs;
    Row row;
    FULMEN_FN float logit(int32_t kv_idx, float x) {
      return theirs.LogitsTransform(p, x, uint32_t(row.batch_idx), uint32_t(row.qo_idx), uint32_t(kv_idx),
                                    uint32_t(row.qo_head), uint32_t(row.kv_head));
    }
    FULMEN_FN float weight(int32_t kv_idx, float x) { return logit(kv_idx, x); }
    FULMEN_FN bool keep(int32_t kv_idx) {
      return theirs.LogitsMask(p, uint32_t(row.batch_idx), uint32_t(row.qo_idx), uint32_t(kv_idx),
                               uint32_t(row.qo_head), uint32_t(row.kv_head));
    }
    FULMEN_FN float update(float& m, float& d) {
      float scale = 1;
      theirs.update_m_d(p, 0, uint32_t(row.qo_head), m, d, scale);
      return scale;
    }
    FULMEN_FN float finish(float o, float m, float d, float scale) {
      if constexpr (Theirs::kTransformsOutput)
        return theirs.OutputTransform(p, o, uint32_t(row.batch_idx), uint32_t(row.qo_idx), uint32_t(row.qo_head), m, d,
                                      scale);
      return d > 0 ? o * scale / d : 0;
    }
  };
  FULMEN_FN OfRow of_row(Row row) const {
    const Params p = params(row);
    return {p, theirs(p, row), row};
  }

 private:
  // A scalar function of numbers, or of each lane of a SIMD register (whose type brings for_lanes).
  template <class F, class I, class Function>
  FULMEN_FN static F by_element(F x, I kv_idx, Function f) {
    if constexpr (requires { for_lanes(x, kv_idx, f); })
      return for_lanes(x, kv_idx, f);
    else
      return F(f(int32_t(kv_idx), float(x)));
  }
};

}  // namespace fulmen::attention::flashinfer
