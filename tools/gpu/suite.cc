// SPDX-License-Identifier: Apache-2.0
#include "tools/gpu/suite.h"

#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/layernorm.h>
#include <fulmen/ops/merge_state.h>
#include <fulmen/ops/per_tensor_quant_fp8.h>
#include <fulmen/ops/per_token_group_quant_fp8.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/rope.h>
#include <fulmen/ops/rope_append_paged_kv_cache.h>

#include <algorithm>
#include <random>

#include "tools/gpu/timing.h"

namespace fulmen::gpu {
namespace {

constexpr DType kBF16 = DType::kBF16, kF32 = DType::kF32, kI32 = DType::kI32, kE4M3 = DType::kE4M3;

// Normal random bf16 (or f32) values: zeros would use less power and so run faster than real data.
const std::vector<uint16_t>& random_bf16() {
  static const std::vector<uint16_t> all = [] {
    std::vector<uint16_t> values(size_t(4) << 20);
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    for (uint16_t& v : values) v = to_bf16(normal(random)).bits;
    return values;
  }();
  return all;
}

class Pool {  // the buffers of a problem
 public:
  TensorView tensor(DType dtype, std::vector<int64_t> shape) {
    TensorView t;
    t.dtype = dtype, t.rank = int32_t(shape.size()), t.device_type = DeviceType::kCuda;
    int64_t stride = 1;
    for (int32_t i = t.rank; i-- > 0; stride *= shape[size_t(i)]) t.shape[i] = shape[size_t(i)], t.strides[i] = stride;
    memory_.push_back(std::make_shared<Memory>(size_t(stride) * size_t(size_of(dtype))));
    t.data = memory_.back()->data();
    return t;
  }
  TensorView random(DType dtype, std::vector<int64_t> shape) {
    const TensorView t = tensor(dtype, std::move(shape));
    const std::vector<uint16_t>& source = random_bf16();
    const size_t total = size_t(t.num_elements()) * size_t(size_of(dtype)), piece = source.size() * 2;
    if (dtype == kF32) return upload(t, normal_floats(t.num_elements())), t;
    for (size_t at = 0; at < total; at += piece) copy(t.as<char>() + at, source.data(), std::min(piece, total - at));
    return t;
  }
  template <class T>
  TensorView given(DType dtype, const std::vector<T>& values) {
    const TensorView t = tensor(dtype, {int64_t(values.size())});
    return upload(t, values), t;
  }

 private:
  static void copy(void* to, const void* from, size_t n) {
    cuda::check(driver::api().memory_copy(driver::Pointer(to), driver::Pointer(from), n, nullptr), "cuMemcpyAsync");
    cuda::check(driver::api().stream_synchronize(nullptr), "cuStreamSynchronize");
  }
  template <class T>
  void upload(const TensorView& t, const std::vector<T>& values) {
    copy(t.data, values.data(), values.size() * sizeof(T));
  }
  static std::vector<float> normal_floats(int64_t n) {
    std::vector<float> values(static_cast<size_t>(n));
    const std::vector<uint16_t>& source = random_bf16();
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = to_f32(bf16{source[i % source.size()]}) + float(i % 97) * 1e-3f;
    return values;
  }
  std::vector<std::shared_ptr<Memory>> memory_;
};

// As many sets as overflow any L2 three times, at most 24.
int32_t sets_for(double bytes) { return int32_t(std::clamp(200e6 / bytes + 2, 3.0, 24.0)); }

// make(pool, set) fills one set's arguments; op(args, context) launches.
template <class Args>
Problem problem(double bytes, std::function<Args(Pool&)> make, void (*op)(const Args&, const Context&)) {
  auto pool = std::make_shared<Pool>();
  auto all = std::make_shared<std::vector<Args>>();
  const int32_t sets = sets_for(bytes);
  for (int32_t i = 0; i < sets; ++i) all->push_back(make(*pool));
  return {.num_sets = sets, .bytes = bytes, .launch = [pool, all, op](int32_t set, const Context& context) {
            op((*all)[size_t(set)], context);
          }};
}

Problem norm_problem(std::vector<int64_t> shape, DType out) {
  double n = 1;
  for (int64_t d : shape) n *= double(d);
  return problem<RmsNormArgs>(
      n * (2 + size_of(out)),
      [=](Pool& p) {
        return RmsNormArgs{
            .input = p.random(kBF16, shape), .weight = p.random(kBF16, {shape.back()}), .out = p.tensor(out, shape)};
      },
      rmsnorm);
}

Problem add_norm_problem(int64_t rows, int64_t n) {
  return problem<FusedAddRmsNormArgs>(
      8.0 * double(rows * n),
      [=](Pool& p) {
        const TensorView x = p.random(kBF16, {rows, n});
        return FusedAddRmsNormArgs{
            .input = x, .residual = p.random(kBF16, {rows, n}), .weight = p.random(kBF16, {n}), .out = x};
      },
      fused_add_rmsnorm);
}

Problem layernorm_problem(int64_t rows, int64_t n) {
  return problem<LayerNormArgs>(
      4.0 * double(rows * n),
      [=](Pool& p) {
        return LayerNormArgs{.input = p.random(kBF16, {rows, n}),
                             .gamma = p.random(kF32, {n}),
                             .beta = p.random(kF32, {n}),
                             .out = p.tensor(kBF16, {rows, n})};
      },
      layernorm);
}

Problem activation_problem(int64_t rows, int64_t n, Activation activation) {
  return problem<ActAndMulArgs>(
      6.0 * double(rows * n),
      [=](Pool& p) {
        return ActAndMulArgs{
            .input = p.random(kBF16, {rows, 2 * n}), .out = p.tensor(kBF16, {rows, n}), .activation = activation};
      },
      act_and_mul);
}

Problem merge_problem(int64_t tokens, int64_t heads, int64_t dim) {
  return problem<MergeStateArgs>(
      6.0 * double(tokens * heads * dim),
      [=](Pool& p) {
        return MergeStateArgs{.v_a = p.random(kBF16, {tokens, heads, dim}),
                              .s_a = p.random(kF32, {tokens, heads}),
                              .v_b = p.random(kBF16, {tokens, heads, dim}),
                              .s_b = p.random(kF32, {tokens, heads}),
                              .out = p.tensor(kBF16, {tokens, heads, dim}),
                              .lse = p.tensor(kF32, {tokens, heads})};
      },
      merge_state);
}

Problem group_quant_problem(int64_t rows, int64_t n) {
  return problem<PerTokenGroupQuantFp8Args>(
      3.03 * double(rows * n),
      [=](Pool& p) {
        return PerTokenGroupQuantFp8Args{.input = p.random(kBF16, {rows, n}),
                                         .out = p.tensor(kE4M3, {rows, n}),
                                         .scales = p.tensor(kF32, {rows, n / 128})};
      },
      per_token_group_quant_fp8);
}

Problem tensor_quant_problem(int64_t rows, int64_t n) {
  return problem<PerTensorQuantFp8Args>(
      3.0 * double(rows * n),
      [=](Pool& p) {
        return PerTensorQuantFp8Args{.input = p.random(kBF16, {rows, n}),
                                     .out = p.tensor(kE4M3, {rows, n}),
                                     .scale = p.given(kF32, std::vector<float>{0.02f})};
      },
      per_tensor_quant_fp8);
}

struct RopeAppend {
  RopeArgs rope;
  AppendPagedKvCacheArgs append;
};

AppendPagedKvCacheArgs append_args(Pool& p, const TensorView& k, const TensorView& v, int64_t tokens, int64_t batch) {
  const int64_t heads = 8, dim = 128, page_size = 16, per_request = tokens / batch;
  const int64_t pages_each = (per_request + page_size - 1) / page_size, num_pages = batch * pages_each;
  std::vector<int32_t> pages, indptr, request, position;
  for (int64_t i = 0; i < num_pages; ++i) pages.push_back(int32_t(i));
  std::shuffle(pages.begin(), pages.end(), std::mt19937(2));
  for (int64_t b = 0; b <= batch; ++b) indptr.push_back(int32_t(b * pages_each));
  for (int64_t t = 0; t < tokens; ++t)
    request.push_back(int32_t(t / per_request)), position.push_back(int32_t(t % per_request));
  return {.append_key = k,
          .append_value = v,
          .batch_indices = p.given(kI32, request),
          .positions = p.given(kI32, position),
          .k_cache = p.tensor(kBF16, {num_pages, page_size, heads, dim}),
          .v_cache = p.tensor(kBF16, {num_pages, page_size, heads, dim}),
          .kv_indices = p.given(kI32, pages),
          .kv_indptr = p.given(kI32, indptr)};
}

Problem append_problem(int64_t tokens, int64_t batch) {
  return problem<AppendPagedKvCacheArgs>(
      8.0 * double(tokens * 8 * 128),
      [=](Pool& p) {
        return append_args(p, p.random(kBF16, {tokens, 8, 128}), p.random(kBF16, {tokens, 8, 128}), tokens, batch);
      },
      append_paged_kv_cache);
}

RopeArgs rope_args(Pool& p, int64_t tokens) {
  std::vector<int32_t> position;
  for (int64_t t = 0; t < tokens; ++t) position.push_back(int32_t(t));
  const TensorView q = p.random(kBF16, {tokens, 32, 128}), k = p.random(kBF16, {tokens, 8, 128});
  return {.q = q, .k = k, .q_out = q, .k_out = k, .pos_ids = p.given(kI32, position)};
}

Problem rope_problem(int64_t tokens) {
  return problem<RopeArgs>(
      4.0 * double(tokens * 40 * 128), [=](Pool& p) { return rope_args(p, tokens); }, rope);
}

RopeAppendPagedKvCacheArgs rope_append_args(Pool& p, int64_t tokens, int64_t batch) {
  const RopeArgs r = rope_args(p, tokens);
  const AppendPagedKvCacheArgs a = append_args(p, r.k, p.random(kBF16, {tokens, 8, 128}), tokens, batch);
  return {.q_rope = r.q,
          .k_rope = r.k,
          .v = a.append_value,
          .q_rope_out = r.q_out,
          .k_rope_cache = a.k_cache,
          .v_cache = a.v_cache,
          .pos_ids = r.pos_ids,
          .batch_indices = a.batch_indices,
          .positions = a.positions,
          .kv_indices = a.kv_indices,
          .kv_indptr = a.kv_indptr};
}

Problem rope_append_problem(int64_t tokens, int64_t batch) {
  return problem<RopeAppendPagedKvCacheArgs>(
      4.0 * double(tokens * 48 * 128), [=](Pool& p) { return rope_append_args(p, tokens, batch); },
      rope_append_paged_kv_cache);
}

// The same in two launches.
Problem rope_then_append_problem(int64_t tokens) {
  return problem<RopeAppend>(
      4.0 * double(tokens * 48 * 128),
      [=](Pool& p) {
        const RopeArgs r = rope_args(p, tokens);
        return RopeAppend{r, append_args(p, r.k_out, p.random(kBF16, {tokens, 8, 128}), tokens, 8)};
      },
      [](const RopeAppend& a, const Context& context) {
        rope(a.rope, context);
        append_paged_kv_cache(a.append, context);
      });
}

}  // namespace

std::vector<Row> suite() {
  return {
      {"N1", "rmsnorm bf16 1 x 8192",
       [] {
         return norm_problem({1, 8192}, kBF16);
       }},
      {"N2", "fused_add_rmsnorm bf16 4096 x 8192", [] { return add_norm_problem(4096, 8192); }},
      {"N3", "rmsnorm bf16 to e4m3 8192 x 4096",
       [] {
         return norm_problem({8192, 4096}, kE4M3);
       }},
      {"N4", "rmsnorm bf16 27030 x 24 x 128",
       [] {
         return norm_problem({27030, 24, 128}, kBF16);
       }},
      {"N5", "silu_and_mul bf16 4096 x 2*14336", [] { return activation_problem(4096, 14336, Activation::kSilu); }},
      {"N6", "rope + append bf16 8192 tokens 32/8 D128", [] { return rope_append_problem(8192, 8); }},
      {"N6-two", "rope, then append bf16 8192 tokens 32/8 D128", [] { return rope_then_append_problem(8192); }},
      {"rope_append-256", "rope + append bf16 256 decode tokens 32/8 D128",
       [] { return rope_append_problem(256, 256); }},
      {"N7", "append bf16 256 decode tokens 8 heads D128", [] { return append_problem(256, 256); }},
      {"C3", "merge_state bf16 8192 x 64 x 128", [] { return merge_problem(8192, 64, 128); }},
      {"rmsnorm-4096x8192", "rmsnorm bf16 4096 x 8192",
       [] {
         return norm_problem({4096, 8192}, kBF16);
       }},
      {"rmsnorm-16384x4096", "rmsnorm bf16 16384 x 4096",
       [] {
         return norm_problem({16384, 4096}, kBF16);
       }},
      {"rmsnorm-65536x1024", "rmsnorm bf16 65536 x 1024",
       [] {
         return norm_problem({65536, 1024}, kBF16);
       }},
      {"rmsnorm-128x8192", "rmsnorm bf16 128 x 8192",
       [] {
         return norm_problem({128, 8192}, kBF16);
       }},
      {"rmsnorm-4096x16384", "rmsnorm bf16 4096 x 16384",
       [] {
         return norm_problem({4096, 16384}, kBF16);
       }},
      {"rmsnorm-4096x5000", "rmsnorm bf16 4096 x 5000",
       [] {
         return norm_problem({4096, 5000}, kBF16);
       }},
      {"fused_add_rmsnorm-16384x4096", "fused_add_rmsnorm bf16 16384 x 4096",
       [] { return add_norm_problem(16384, 4096); }},
      {"layernorm-8192x4096", "layernorm bf16 8192 x 4096", [] { return layernorm_problem(8192, 4096); }},
      {"gelu_tanh-4096x14336", "gelu_tanh_and_mul bf16 4096 x 2*14336",
       [] { return activation_problem(4096, 14336, Activation::kGeluTanh); }},
      {"rope-8192", "rope bf16 8192 tokens 32/8 D128 in place", [] { return rope_problem(8192); }},
      {"rope-64", "rope bf16 64 tokens 32/8 D128 in place", [] { return rope_problem(64); }},
      {"append-8192", "append bf16 8192 tokens 8 heads D128", [] { return append_problem(8192, 8); }},
      {"group_quant-8192x4096", "per_token_group_quant_fp8 bf16 8192 x 4096",
       [] { return group_quant_problem(8192, 4096); }},
      {"tensor_quant-8192x4096", "per_tensor_quant_fp8 bf16 8192 x 4096",
       [] { return tensor_quant_problem(8192, 4096); }},
  };
}

}  // namespace fulmen::gpu
