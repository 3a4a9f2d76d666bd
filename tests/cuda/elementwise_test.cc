// SPDX-License-Identifier: Apache-2.0
// act_and_mul, rope, merge_state, merge_states, FP8 quantization on the GPU.
#include <fulmen/reference/act_and_mul.h>
#include <fulmen/reference/merge_state.h>
#include <fulmen/reference/per_tensor_quant_fp8.h>
#include <fulmen/reference/per_token_group_quant_fp8.h>
#include <fulmen/reference/rope.h>

#include "tests/support/gpu_case.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

class CudaElementwise : public OnGpu {};

TEST_F(CudaElementwise, ActAndMulStaysWithinTheBound) {
  for (DType t : float_types())
    for (Activation activation : {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh})
      for (const std::vector<int64_t>& shape :
           std::vector<std::vector<int64_t>>{{1, 1}, {3, 7}, {5, 128}, {2, 3, 96}, {33, 1000}, {300, 14336}}) {
        if (too_long_for_emulator(shape[0] * shape.back())) continue;
        std::vector<int64_t> twice = shape;
        twice.back() *= 2;
        Tensor x(t, twice, shape[0] % 3), out(t, shape, 2 * (shape[0] % 2));
        x.fill_normal(5, 4);
        const ActAndMulArgs host{.input = x, .out = out, .activation = activation};
        const reference::Values expected = reference::act_and_mul(host);
        GpuTensor dx(x), dout(out);
        act_and_mul({.input = dx, .out = dout, .activation = activation});
        EXPECT_TRUE(within(dout.fetch(), expected))
            << name_of(t) << " activation " << int32_t(activation) << " n " << shape.back();
      }
}

struct RopeCase {
  DType dtype = DType::kBF16;
  int64_t nnz = 7, q_heads = 4, k_heads = 2, head_dim = 128, rotary_dim = 0;
  bool interleave = false, in_place = false, cache = false, by_request = false;
  int64_t padding = 0, old_context_len = 0;
  DType ids = DType::kI32;
};

void check_rope(const RopeCase& c) {
  Tensor q(c.dtype, {c.nnz, c.q_heads, c.head_dim}, c.padding),
      k(c.dtype, {c.nnz, std::max<int64_t>(c.k_heads, 1), c.head_dim}, c.padding);
  Tensor q_out(c.dtype, {c.nnz, c.q_heads, c.head_dim}),
      k_out(c.dtype, {c.nnz, std::max<int64_t>(c.k_heads, 1), c.head_dim});
  const int64_t rotary = c.rotary_dim == 0 ? c.head_dim : c.rotary_dim, table_len = 4096;
  Tensor ids(c.ids, {c.nnz}), indptr(c.ids, {4}), offsets(c.ids, {3}), cache(DType::kF32, {table_len, rotary});
  q.fill_normal(1), k.fill_normal(2), q_out.fill_integers(3, 1, 9), k_out.fill_integers(4, 1, 9);
  ids.fill([&](int64_t i) { return double(c.cache ? i * 577 % table_len : i == 0 ? 9999999 : i * 12345); });
  const int64_t ends[] = {0, c.nnz / 2, c.nnz / 2, c.nnz - 1};  // an empty request; the last token is nobody's
  indptr.fill([&](int64_t i) { return double(ends[i]); });
  offsets.fill([&](int64_t i) { return double(1000 * i); });
  cache.fill([&](int64_t i) { return std::cos(double(i / rotary) * 0.01 + double(i % rotary)); });
  const bool with_k = c.k_heads > 0;
  RopeArgs host{.q = q,
                .q_out = q_out,
                .rotary_dim = c.rotary_dim,
                .interleave = c.interleave,
                .old_context_len = c.old_context_len};
  if (with_k) host.k = k, host.k_out = k_out;
  if (c.in_place) host.q_out = q, host.k_out = with_k ? k.view() : TensorView{};
  if (c.by_request)
    host.indptr = indptr, host.offsets = offsets;
  else
    host.pos_ids = ids;
  if (c.cache) host.cos_sin_cache = cache;
  const reference::Rope expected = reference::rope(host);
  GpuTensor dq(q), dk(k), dq_out(q_out), dk_out(k_out), dids(ids), dindptr(indptr), doffsets(offsets), dcache(cache);
  RopeArgs args = host;
  args.q = dq, args.q_out = c.in_place ? dq : dq_out;
  if (with_k) args.k = dk, args.k_out = c.in_place ? dk : dk_out;
  if (c.by_request)
    args.indptr = dindptr, args.offsets = doffsets;
  else
    args.pos_ids = dids;
  if (c.cache) args.cos_sin_cache = dcache;
  rope(args);
  EXPECT_TRUE(within(c.in_place ? dq.fetch() : dq_out.fetch(), expected.q));
  if (with_k) { EXPECT_TRUE(within(c.in_place ? dk.fetch() : dk_out.fetch(), expected.k)); }
}

TEST_F(CudaElementwise, RopeStaysWithinTheBound) {
  std::vector<RopeCase> cases;
  for (DType t : float_types())
    for (bool interleave : {false, true}) {
      cases.push_back({.dtype = t, .interleave = interleave});
      cases.push_back({.dtype = t, .head_dim = 96, .rotary_dim = 64, .interleave = interleave, .padding = 8});
      cases.push_back({.dtype = t,
                       .head_dim = 64,
                       .rotary_dim = 32,
                       .interleave = interleave,
                       .in_place = true,
                       .ids = DType::kI64});
      cases.push_back({.dtype = t, .interleave = interleave, .cache = true});
      cases.push_back(
          {.dtype = t, .head_dim = 22, .rotary_dim = 6, .interleave = interleave, .by_request = true, .padding = 1});
    }
  cases.push_back({.k_heads = 0});
  cases.push_back({.head_dim = 1024, .old_context_len = 8192});
  cases.push_back({.nnz = 300, .q_heads = 32, .k_heads = 8, .by_request = true, .ids = DType::kI64});
  for (const RopeCase& c : cases) {
    if (too_long_for_emulator(c.nnz * c.head_dim * (c.q_heads + c.k_heads))) continue;
    check_rope(c);
    if (HasFailure())
      FAIL() << name_of(c.dtype) << " head_dim " << c.head_dim << " interleave " << c.interleave << " cache "
             << c.cache;
  }
}

TEST_F(CudaElementwise, MergeStateStaysWithinTheBound) {
  for (DType t : float_types())
    for (int64_t head_dim : {1, 7, 64, 128, 200, 576}) {
      Tensor v_a(t, {5, 3, head_dim}), v_b(t, {5, 3, head_dim}, 1), s_a(DType::kF32, {5, 3}), s_b(DType::kF32, {5, 3});
      Tensor out(t, {5, 3, head_dim}), lse(DType::kF32, {5, 3});
      v_a.fill_normal(1), v_b.fill_normal(2), s_a.fill_normal(3, 4), s_b.fill_normal(4, 4);
      s_a.set(1, -INFINITY), s_b.set(2, -INFINITY), s_a.set(3, -INFINITY), s_b.set(3, -INFINITY), s_a.set(4, 1e4);
      for (int64_t i = 0; i < head_dim; ++i) v_a.set(head_dim + i, NAN);  // of a neutral state
      for (LogBase base : {LogBase::kE, LogBase::k2}) {
        const MergeStateArgs host{
            .v_a = v_a, .s_a = s_a, .v_b = v_b, .s_b = s_b, .out = out, .lse = lse, .lse_base = base};
        const reference::MergedValues expected = reference::merge_state(host);
        GpuTensor da(v_a), dsa(s_a), db(v_b), dsb(s_b), dout(out), dlse(lse);
        merge_state({.v_a = da, .s_a = dsa, .v_b = db, .s_b = dsb, .out = dout, .lse = dlse, .lse_base = base});
        EXPECT_TRUE(within(dout.fetch(), expected.out)) << name_of(t) << " " << head_dim;
        EXPECT_TRUE(within(dlse.fetch(), expected.lse)) << name_of(t) << " " << head_dim;
        Tensor v = v_a, s = s_a;
        GpuTensor dv(v), ds(s);
        merge_state_in_place(dv, ds, db, dsb, {}, base);
        EXPECT_TRUE(dv.fetch().same_bytes(out)) << "in place";
        EXPECT_TRUE(ds.fetch().same_bytes(lse)) << "in place";
      }
    }
}

TEST_F(CudaElementwise, MergeStatesStaysWithinTheBound) {
  for (DType t : float_types())
    for (int64_t num_states : {0, 1, 3, 9}) {
      Tensor v(t, {6, num_states, 4, 128}), s(DType::kF32, {6, num_states, 4}), out(DType::kBF16, {6, 4, 128}),
          lse(DType::kF32, {6, 4});
      v.fill_normal(1), s.fill_normal(2, 3);
      if (num_states > 1) s.set(5, -INFINITY);
      const MergeStatesArgs host{.v = v, .s = s, .out = out, .lse = lse};
      const reference::MergedValues expected = reference::merge_states(host);
      GpuTensor dv(v), ds(s), dout(out), dlse(lse);
      merge_states({.v = dv, .s = ds, .out = dout, .lse = dlse});
      EXPECT_TRUE(within(dout.fetch(), expected.out)) << name_of(t) << " " << num_states;
      EXPECT_TRUE(within(dlse.fetch(), expected.lse)) << name_of(t) << " " << num_states;
      Tensor mask(DType::kU8, {6}), half = out;
      mask.fill([](int64_t i) { return i % 2; });
      half.poison(0xff);
      GpuTensor dmask(mask), dhalf(half);
      merge_states({.v = dv, .s = ds, .out = dhalf, .lse = dlse, .mask = dmask});
      dhalf.fetch();
      for (int64_t i = 0; i < 6 * 512; ++i)
        ASSERT_EQ(half.data<uint16_t>()[i], i / 512 % 2 ? out.data<uint16_t>()[i] : 0xffff) << i;
    }
}

TEST_F(CudaElementwise, GroupQuantizationStaysWithinTheBound) {
  for (DType t : float_types())
    for (DType out_dtype : {DType::kE4M3, DType::kE5M2})
      for (int64_t group_size : {1, 8, 60, 128, 480, 960})
        for (bool major : {false, true}) {
          const int64_t n = 1920, groups = n / group_size;
          Tensor x(t, {7, n}, group_size % 3), out(out_dtype, {7, n}, 3),
              scales(DType::kF32, {major ? groups : 7, major ? 7 : groups}, 1);
          x.fill_normal(8, 30);
          x.set(0, 0), x.set(1, NAN);
          const PerTokenGroupQuantFp8Args host{.input = x,
                                               .out = out,
                                               .scales = scales,
                                               .group_size = group_size,
                                               .group_major_scales = major,
                                               .pow2_scales = major};
          const reference::QuantFp8 expected = reference::per_token_group_quant_fp8(host);
          GpuTensor dx(x), dout(out), dscales(scales);
          PerTokenGroupQuantFp8Args args = host;
          args.input = dx, args.out = dout, args.scales = dscales;
          per_token_group_quant_fp8(args);
          dout.fetch();
          EXPECT_TRUE(std::isnan(reference::element(out, 1)));
          out.set(1, 0);
          reference::Values values = expected.out;
          values[1] = {0, 0};
          EXPECT_TRUE(within(out, values)) << name_of(t) << " group " << group_size;
          EXPECT_TRUE(within(dscales.fetch(), expected.scales)) << name_of(t) << " group " << group_size;
        }
}

TEST_F(CudaElementwise, TensorQuantizationStaysWithinTheBound) {
  for (DType t : float_types())
    for (DType out_dtype : {DType::kE4M3, DType::kE5M2})
      for (const std::vector<int64_t>& shape :
           std::vector<std::vector<int64_t>>{{0, 8}, {1, 1}, {5, 333}, {64, 1024}, {3, 2, 40}})
        for (bool dynamic : {false, true}) {
          Tensor x(t, shape, shape[0] % 2), out(out_dtype, shape), scale(DType::kF32, {1});
          x.fill_normal(9, 3), scale.set(0, 0.02);
          const PerTensorQuantFp8Args host{.input = x, .out = out, .scale = scale, .dynamic = dynamic};
          const reference::QuantFp8 expected = reference::per_tensor_quant_fp8(host);
          GpuTensor dx(x), dout(out), dscale(scale);
          per_tensor_quant_fp8({.input = dx, .out = dout, .scale = dscale, .dynamic = dynamic});
          EXPECT_TRUE(within(dout.fetch(), expected.out))
              << name_of(t) << " dynamic " << dynamic << " n " << shape.back();
          EXPECT_TRUE(within(dscale.fetch(), expected.scales))
              << name_of(t) << " dynamic " << dynamic << " n " << shape.back();
        }
}

}  // namespace
}  // namespace fulmen::testing
