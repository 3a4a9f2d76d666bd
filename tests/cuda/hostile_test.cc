// SPDX-License-Identifier: Apache-2.0
// Calls that break careless kernels: nothing at all behind null pointers, a million rows, strides beyond 2^31, views
// that start anywhere, ops of several launches inside a graph.
#include <fulmen/ops/append_paged_mla_kv_cache.h>
#include <fulmen/ops/elementwise.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/ops/get_seq_lens.h>
#include <fulmen/ops/layernorm.h>
#include <fulmen/ops/packbits.h>
#include <fulmen/ops/rope_append_paged_kv_cache.h>
#include <fulmen/reference/act_and_mul.h>
#include <fulmen/reference/merge_state.h>
#include <fulmen/reference/per_tensor_quant_fp8.h>
#include <fulmen/reference/rmsnorm.h>
#include <fulmen/reference/rope.h>

#include "tests/support/gpu_case.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

class CudaHostile : public OnGpu {};

// A contiguous tensor of the given shape on the GPU, without memory.
TensorView nothing(DType dtype, std::vector<int64_t> shape) {
  TensorView t;
  t.dtype = dtype, t.rank = int32_t(shape.size()), t.device_type = DeviceType::kCuda;
  for (int64_t i = t.rank, stride = 1; i-- > 0; stride *= shape[size_t(i)])
    t.shape[i] = shape[size_t(i)], t.strides[i] = stride;
  return t;
}

constexpr DType kH = DType::kBF16, kF = DType::kF32, kI = DType::kI32;

TEST_F(CudaHostile, NothingBehindNullPointersIsLegal) {
  Tensor weight(kH, {64});
  weight.fill_normal(1);
  GpuTensor w(weight);
  const TensorView rows = nothing(kH, {0, 64}), heads = nothing(kH, {0, 4, 64}), lse = nothing(kF, {0, 4});
  const TensorView ids = nothing(kI, {0}), cache = nothing(kH, {0, 16, 4, 64});
  EXPECT_NO_THROW(rmsnorm({.input = rows, .weight = w, .out = rows}));
  EXPECT_NO_THROW(fused_add_rmsnorm({.input = rows, .residual = rows, .weight = w, .out = rows}));
  EXPECT_NO_THROW(act_and_mul({.input = nothing(kH, {0, 128}), .out = rows}));
  EXPECT_NO_THROW(merge_state({.v_a = heads, .s_a = lse, .v_b = heads, .s_b = lse, .out = heads, .lse = lse}));
  EXPECT_NO_THROW(rope({.q = heads, .k = heads, .q_out = heads, .k_out = heads, .pos_ids = ids}));
  EXPECT_NO_THROW(elementwise({.text = "return a;", .name = "same", .a = rows, .out = rows}));
  EXPECT_NO_THROW(packbits({.x = nothing(DType::kBool, {0}), .out = nothing(DType::kU8, {0})}));
  Tensor zero(kI, {1});
  zero.set(0, 0);
  GpuTensor indptr(zero);
  EXPECT_NO_THROW(get_batch_indices_positions({indptr, ids, ids, ids}));
  EXPECT_NO_THROW(get_seq_lens({indptr, ids, ids}));
  EXPECT_NO_THROW(append_paged_kv_cache({heads, heads, ids, ids, cache, cache, ids, indptr, {}}));
  EXPECT_NO_THROW(rope_append_paged_kv_cache({.q_rope = heads,
                                              .k_rope = heads,
                                              .v = heads,
                                              .q_rope_out = heads,
                                              .k_rope_cache = cache,
                                              .v_cache = cache,
                                              .pos_ids = ids,
                                              .batch_indices = ids,
                                              .positions = ids,
                                              .kv_indices = ids,
                                              .kv_indptr = indptr}));
}

TEST_F(CudaHostile, TokensWithoutHeadsAreLegal) {
  Tensor k(kH, {5, 2, 64}), ids(kI, {5});
  k.fill_normal(1), ids.fill([](int64_t i) { return double(i); });
  const reference::Rope expected = reference::rope(
      {.q = Tensor(kH, {5, 0, 64}), .k = k, .q_out = Tensor(kH, {5, 0, 64}), .k_out = k, .pos_ids = ids});
  GpuTensor dk(k), dids(ids);
  const TensorView none = nothing(kH, {5, 0, 64});
  rope({.q = none, .k = dk, .q_out = none, .k_out = dk, .pos_ids = dids});
  EXPECT_TRUE(within(dk.fetch(), expected.k));
  rope({.q = none, .k = none, .q_out = none, .k_out = none, .pos_ids = dids});
}

TEST_F(CudaHostile, AMillionRows) {
  if (emulated()) GTEST_SKIP() << "takes the emulator too long";
  for (int64_t n : {8, 20}) {
    Tensor x(kH, {(1 << 20) + 3, n}), w(kH, {n}), out(kH, {(1 << 20) + 3, n}, 1);
    x.fill_normal(1), w.fill_normal(2);
    GpuTensor dx(x), dw(w), dout(out);
    rmsnorm({.input = dx, .weight = dw, .out = dout});
    EXPECT_TRUE(within(dout.fetch(), reference::rmsnorm({.input = x, .weight = w, .out = out})));
  }
}

// Views that start at every element of 16 bytes, rows one element apart from their neighbours.
TEST_F(CudaHostile, ViewsThatStartAnywhere) {
  for (int64_t shift : {0, 1, 2, 3, 4, 7}) {
    Tensor x(kH, {9, 2 * 72}, 1), out(kH, {9, 72}, shift % 3);
    x.fill_normal(uint64_t(shift) + 1);
    GpuTensor dx(x), dout(out);
    const auto moved = [&](TensorView t, int64_t n) {
      t.data = t.as<char>() + 2 * shift, t.shape[1] = n;
      return t;
    };
    TensorView host = moved(x, 128), host_out = moved(out, 64);
    const reference::Values expected = reference::act_and_mul({.input = host, .out = host_out});
    act_and_mul({.input = moved(dx, 128), .out = moved(dout, 64)});
    dout.fetch();
    EXPECT_LE(worst_ratio(host_out, expected), 1) << shift;
    EXPECT_TRUE(out.guards_intact());
  }
}

TEST_F(CudaHostile, StridesBeyond32Bits) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "needs 8 GiB";
  constexpr int64_t kStride = (int64_t(1) << 31) + 64;  // elements from a token to the next
  const cuda::CurrentContext current(cuda::device(0).primary);
  cuda::driver::Pointer memory = 0;
  if (cuda::driver::api().memory_alloc(&memory, size_t(2 * kStride) + 65536) != 0) GTEST_SKIP() << "too little memory";
  Tensor q(kH, {2, 4, 128}), ids(kI, {2});
  q.fill_normal(1), ids.fill([](int64_t i) { return double(3 * i + 1); });
  const reference::Rope expected = reference::rope({.q = q, .q_out = q, .pos_ids = ids});
  GpuTensor dq(q), dids(ids);
  TensorView far = dq;
  far.data = reinterpret_cast<void*>(memory), far.strides[0] = kStride;
  for (int64_t t = 0; t < 2; ++t)
    gpu_copy(far.as<char>() + t * kStride * 2, TensorView(dq).as<char>() + t * 1024, 1024);
  rope({.q = far, .q_out = far, .pos_ids = dids});
  TensorView packed = far;
  packed.shape[1] = 1, packed.shape[2] = 512, packed.strides[1] = 512;  // [2, 1, 512], the same memory
  TensorView target = packed;
  target.data = TensorView(dq).data, target.strides[0] = 512;
  elementwise({.text = "return a;", .name = "copy", .a = packed, .out = target});
  EXPECT_TRUE(within(dq.fetch(), expected.q));
  cuda::driver::api().memory_free(memory);
}

TEST_F(CudaHostile, OpsOfSeveralLaunchesReplayInAGraph) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator has no graphs";
  const cuda::driver::Api& cu = cuda::driver::api();
  const cuda::CurrentContext current(cuda::device(0).primary);
  Tensor x(kH, {37, 520}), out(DType::kE4M3, {37, 520}), scale(kF, {1});
  GpuTensor dx(x), dout(out), dscale(scale);
  cuda::driver::Stream stream = nullptr;
  cuda::driver::Graph graph = nullptr;
  cuda::driver::GraphExec exec = nullptr;
  cuda::check(cu.stream_create(&stream, 1), "create");
  cuda::check(cu.stream_begin_capture(stream, cuda::driver::kCaptureGlobal), "begin");
  per_tensor_quant_fp8({.input = dx, .out = dout, .scale = dscale, .dynamic = true}, {.stream = stream});
  elementwise({.text = "return a + 0.0f;", .name = "in_capture", .a = dx, .out = dx}, {.stream = stream});
  cuda::check(cu.stream_end_capture(stream, &graph), "end");
  cuda::check(cu.graph_instantiate(&exec, graph, 0), "instantiate");
  for (uint64_t round : {1, 2}) {  // the second time the largest magnitude is smaller
    x.fill_normal(round, round == 1 ? 5 : 0.5);
    const reference::QuantFp8 expected =
        reference::per_tensor_quant_fp8({.input = x, .out = out, .scale = scale, .dynamic = true});
    gpu_copy(TensorView(dx).data, x.view().data, x.num_bytes());
    cuda::check(cu.graph_launch(exec, stream), "launch");
    cuda::check(cu.stream_synchronize(stream), "synchronize");
    EXPECT_TRUE(within(dout.fetch(), expected.out)) << round;
    EXPECT_TRUE(within(dscale.fetch(), expected.scales)) << round;
  }
  cu.graph_exec_destroy(exec), cu.graph_destroy(graph), cu.stream_destroy(stream);
}

}  // namespace
}  // namespace fulmen::testing
