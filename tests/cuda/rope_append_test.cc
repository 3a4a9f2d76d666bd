// SPDX-License-Identifier: Apache-2.0
// rope_append_paged_kv_cache and rope_quantize_fp8 on the GPU.
#include <fulmen/reference/rope_append_paged_kv_cache.h>

#include "tests/support/gpu_case.h"
#include "tests/support/rope_append_problem.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

class CudaRopeAppend : public OnGpu {};

// Every tensor of a call on the GPU; views that start inside a tensor keep their offset.
class Uploaded {
 public:
  void add(Tensor& host) { all_.push_back({&host, std::make_unique<GpuTensor>(host)}); }
  void move(TensorView* view) const {
    if (!view->defined()) return;
    for (const auto& [host, gpu] : all_) {
      const char* begin = host->data<char>();
      const int64_t offset = view->as<char>() - begin;
      if (offset < 0 || offset > int64_t(host->num_bytes()) ||
          (host->num_bytes() > 0 && offset == int64_t(host->num_bytes())))
        continue;
      view->data = static_cast<char*>(TensorView(*gpu).data) + offset;
      view->device_type = DeviceType::kCuda;
      return;
    }
    FAIL() << "a view of no tensor";
  }
  void fetch() {
    for (auto& [host, gpu] : all_) gpu->fetch();
  }

 private:
  std::vector<std::pair<Tensor*, std::unique_ptr<GpuTensor>>> all_;
};

void upload(RopeAppendProblem& p, Uploaded* gpu, RopeAppendPagedKvCacheArgs* a, RopeQuantizeFp8Args* d) {
  for (Tensor* t : {&p.q_rope, &p.k_rope, &p.q_nope, &p.k_nope, &p.v, &p.q_rope_out, &p.q_nope_out, &p.k_cache,
                    &p.v_cache, &p.pos_ids, &p.table, &p.k_rope_out, &p.k_nope_out, &p.paging.batch_indices,
                    &p.paging.positions, &p.paging.indices, &p.paging.indptr})
    if (t->num_bytes() > 0) gpu->add(*t);
  for (TensorView* v : {&a->q_rope, &a->k_rope, &a->q_nope, &a->k_nope, &a->v, &a->q_rope_out, &a->q_nope_out,
                        &a->k_rope_cache, &a->k_nope_cache, &a->v_cache, &a->pos_ids, &a->batch_indices, &a->positions,
                        &a->kv_indices, &a->kv_indptr, &a->cos_sin_cache})
    gpu->move(v);
  for (TensorView* v : {&d->q_rope, &d->k_rope, &d->q_nope, &d->k_nope, &d->q_rope_out, &d->k_rope_out, &d->q_nope_out,
                        &d->k_nope_out, &d->pos_ids, &d->cos_sin_cache})
    gpu->move(v);
}

double worst_of(const TensorView& got, const reference::Values& expected) {
  return got.defined() ? worst_ratio(got, expected) : 0;
}

void check_case(const RopeAppendCase& c) {
  RopeAppendProblem p(c);
  const reference::RopeAppend expected = reference::rope_append_paged_kv_cache(p.args);
  Uploaded gpu;
  RopeAppendPagedKvCacheArgs args = p.args;
  RopeQuantizeFp8Args dense = p.dense;
  upload(p, &gpu, &args, &dense);
  rope_append_paged_kv_cache(args);
  gpu.fetch();
  EXPECT_TRUE(within(p.q_rope_out, expected.q_rope));
  EXPECT_LE(worst_of(p.args.q_nope_out, expected.q_nope), 1);
  EXPECT_LE(worst_of(p.args.k_rope_cache, expected.k_rope_cache), 1);
  EXPECT_LE(worst_of(p.args.k_nope_cache, expected.k_nope_cache), 1);
  EXPECT_LE(worst_of(p.args.v_cache, expected.v_cache), 1);
  EXPECT_TRUE(p.k_cache.guards_intact() && p.v_cache.guards_intact());
  if (!kFp8.has(c.q_out)) return;
  const reference::RopeQuantizeFp8 quantized = reference::rope_quantize_fp8(p.dense);
  rope_quantize_fp8(dense);
  gpu.fetch();
  EXPECT_TRUE(within(p.q_rope_out, quantized.q_rope));
  EXPECT_TRUE(within(p.k_rope_out, quantized.k_rope));
  EXPECT_LE(worst_of(p.dense.q_nope_out, quantized.q_nope), 1);
  EXPECT_LE(worst_of(p.dense.k_nope_out, quantized.k_nope), 1);
}

TEST_F(CudaRopeAppend, StaysWithinTheBound) {
  for (const RopeAppendCase& c : rope_append_cases(float_types())) {
    if (emulated() && (c.kv_out == DType::kE5M2 || c.dtype == DType::kF32)) continue;
    check_case(c);
    ASSERT_FALSE(HasFailure()) << describe(c);
  }
}

TEST_F(CudaRopeAppend, ManyTokensAndHeads) {
  if (emulated()) GTEST_SKIP() << "takes the emulator too long";
  check_case({.num_qo_heads = 32,
              .num_kv_heads = 8,
              .rope_dim = 128,
              .head_dim_vo = 128,
              .kv_lens = {700, 1, 64},
              .append_lens = {700, 1, 64}});
  check_case({.q_out = DType::kE4M3,
              .kv_out = DType::kE4M3,
              .num_qo_heads = 128,
              .num_kv_heads = 1,
              .rope_dim = 64,
              .q_nope_dim = 512,
              .k_nope_dim = 512,
              .head_dim_vo = 0});
}

TEST_F(CudaRopeAppend, IndicesThatPointOutsideAreSkipped) {
  RopeAppendProblem p({});
  p.paging.batch_indices.set(0, 99), p.paging.positions.set(1, -5), p.paging.positions.set(2, 1e9);
  p.paging.indices.set(1, 1e6);
  Tensor k_before = p.k_cache, v_before = p.v_cache;
  Uploaded gpu;
  RopeAppendPagedKvCacheArgs args = p.args;
  RopeQuantizeFp8Args dense = p.dense;
  upload(p, &gpu, &args, &dense);
  args.batch_indices.shape[0] = args.positions.shape[0] = args.pos_ids.shape[0] = 3;
  args.q_rope.shape[0] = args.k_rope.shape[0] = args.v.shape[0] = args.q_rope_out.shape[0] = 3;
  rope_append_paged_kv_cache(args);
  gpu.fetch();
  EXPECT_TRUE(p.k_cache.same_bytes(k_before));
  EXPECT_TRUE(p.v_cache.same_bytes(v_before));
}

}  // namespace
}  // namespace fulmen::testing
