// SPDX-License-Identifier: Apache-2.0
// Rows S1 to S8: sampling, renormalising and selecting over vocabularies. Logits are standard normal unless a row's
// text says otherwise; filters are top-k 50 and top-p 0.9.
#include <fulmen/ops/chain_speculative_sampling.h>
#include <fulmen/ops/sample.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/top_k.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "tools/gpu/suite.h"
#include "tools/gpu/timing.h"

namespace fulmen::gpu {
namespace {

constexpr DType kBF16 = DType::kBF16, kF32 = DType::kF32, kI32 = DType::kI32;

struct Buffers {
  std::vector<std::shared_ptr<Memory>> memory;
  TensorView tensor(DType dtype, std::vector<int64_t> shape) {
    TensorView t;
    t.dtype = dtype, t.rank = int32_t(shape.size()), t.device_type = DeviceType::kCuda;
    int64_t stride = 1;
    for (int32_t i = t.rank; i-- > 0; stride *= shape[size_t(i)]) t.shape[i] = shape[size_t(i)], t.strides[i] = stride;
    memory.push_back(std::make_shared<Memory>(size_t(stride) * size_t(size_of(dtype))));
    t.data = memory.back()->data();
    return t;
  }
};

void copy(void* to, const void* from, size_t n) {
  cuda::check(driver::api().memory_copy(driver::Pointer(to), driver::Pointer(from), n, nullptr), "cuMemcpyAsync");
  cuda::check(driver::api().stream_synchronize(nullptr), "cuStreamSynchronize");
}

const std::vector<float>& normal_values() {
  static const std::vector<float> all = [] {
    std::vector<float> values(size_t(4) << 20);
    std::mt19937_64 random(3);
    std::normal_distribution<float> normal;
    for (float& v : values) v = normal(random);
    return values;
  }();
  return all;
}

// Rows of scaled normal values, starting at different places of one table; as exp(x) / (n e^0.5) where they are
// probabilities.
TensorView fill(Buffers& b, DType dtype, int64_t rows, int64_t n, float scale, bool probs, int32_t set) {
  const TensorView t = b.tensor(dtype, {rows, n});
  const std::vector<float>& source = normal_values();
  const size_t size = size_t(size_of(dtype)), total = size_t(rows * n), piece = source.size();
  std::vector<char> bytes(piece * size);
  for (size_t i = 0; i < piece; ++i) {
    float v = scale * source[(i + size_t(set) * 77777) % piece];
    if (probs) v = std::exp(v) / (float(n) * 1.6487f);
    if (dtype == kF32)
      reinterpret_cast<float*>(bytes.data())[i] = v;
    else
      reinterpret_cast<bf16*>(bytes.data())[i] = to_bf16(v);
  }
  for (size_t at = 0; at < total; at += piece)
    copy(t.as<char>() + at * size, bytes.data(), std::min(piece, total - at) * size);
  return t;
}

int32_t sets_for(double bytes) { return int32_t(std::clamp(200e6 / bytes + 2, 3.0, 24.0)); }

template <class Args>
Problem problem(double bytes, std::function<Args(Buffers&, int32_t)> make, void (*op)(const Args&, const Context&)) {
  auto buffers = std::make_shared<Buffers>();
  auto all = std::make_shared<std::vector<Args>>();
  const int32_t sets = sets_for(bytes);
  for (int32_t i = 0; i < sets; ++i) all->push_back(make(*buffers, i));
  return {.num_sets = sets, .bytes = bytes, .launch = [buffers, all, op](int32_t set, const Context& context) {
            op((*all)[size_t(set)], context);
          }};
}

Row sample_row(const char* id, const char* text, DType dtype, int64_t rows, int64_t n, TokenFilter filter,
               float scale = 1) {
  return {id, text, [=] {
            return problem<SampleArgs>(
                double(rows * n) * size_of(dtype),
                [=](Buffers& b, int32_t set) {
                  return SampleArgs{.input = fill(b, dtype, rows, n, scale, false, set),
                                    .out = b.tensor(kI32, {rows}),
                                    .filter = filter,
                                    .random = {.seed = 42},
                                    .values = TokenValues::kLogits,
                                    .temperature = 0.8f};
                },
                sample);
          }};
}

Row renorm_row(const char* id, const char* text, int64_t rows, int64_t n, TokenFilter filter) {
  return {id, text, [=] {
            return problem<TokenFilterArgs>(
                double(rows * n) * 8,
                [=](Buffers& b, int32_t set) {
                  return TokenFilterArgs{.input = fill(b, kF32, rows, n, 1, true, set),
                                         .out = b.tensor(kF32, {rows, n}),
                                         .filter = filter,
                                         .values = TokenValues::kProbs};
                },
                token_filter);
          }};
}

Row softmax_row(const char* id, const char* text, int64_t rows, int64_t n) {
  return {id, text, [=] {
            return problem<SoftmaxArgs>(
                double(rows * n) * 8,
                [=](Buffers& b, int32_t set) {
                  return SoftmaxArgs{.logits = fill(b, kF32, rows, n, 1, false, set),
                                     .out = b.tensor(kF32, {rows, n}),
                                     .temperature = 0.8f};
                },
                softmax);
          }};
}

Row top_k_row(const char* id, const char* text, int64_t rows, int64_t n, int64_t k, bool sorted) {
  return {id, text, [=] {
            return problem<TopKArgs>(
                double(rows * n) * 4 + double(rows * k) * 8,
                [=](Buffers& b, int32_t set) {
                  return TopKArgs{.input = fill(b, kF32, rows, n, 1, false, set),
                                  .values = b.tensor(kF32, {rows, k}),
                                  .indices = b.tensor(kI32, {rows, k}),
                                  .sorted = sorted};
                },
                top_k);
          }};
}

}  // namespace

std::vector<Row> sampling_suite() {
  const TokenFilter both{.top_k = 50, .top_p = 0.9f}, top_k{.top_k = 50}, top_p{.top_p = 0.9f};
  return {
      sample_row("S1", "top-k 50 + top-p 0.9 from f32 logits 1 x 128256", kF32, 1, 128256, both),
      sample_row("S2", "top-k 50 + top-p 0.9 from f32 logits 128 x 131072", kF32, 128, 131072, both),
      sample_row("S3", "top-k 50 + top-p 0.9 from f32 logits 512 x 128256", kF32, 512, 128256, both),
      sample_row("S4", "top-k 50 + top-p 0.9 from f32 logits 64 x 32000", kF32, 64, 32000, both),
      sample_row("S5", "min-p 0.1 from bf16 logits 512 x 151936", kBF16, 512, 151936, {.min_p = 0.1f}),
      sample_row("S5-temperature", "temperature from bf16 logits 512 x 151936", kBF16, 512, 151936, {}),
      renorm_row("S6", "top-p 0.9 renorm f32 128 x 131072", 128, 131072, top_p),
      top_k_row("S7", "top-k 2048 of f32 64 x 65536, in index order", 64, 65536, 2048, false),
      sample_row("S8", "top-k 50 + top-p 0.9 from f32 logits 1024 x 151936", kF32, 1024, 151936, both),
      sample_row("S1-temperature", "temperature from f32 logits 1 x 128256", kF32, 1, 128256, {}),
      sample_row("S2-top_k", "top-k 50 from f32 logits 128 x 131072", kF32, 128, 131072, top_k),
      sample_row("S2-top_k-1000", "top-k 1000 + top-p 0.9 from f32 logits 128 x 131072", kF32, 128, 131072,
                 {.top_k = 1000, .top_p = 0.9f}),
      sample_row("S2-top_p", "top-p 0.9 from f32 logits 128 x 131072", kF32, 128, 131072, top_p),
      sample_row("S2-top_p-peaked", "top-p 0.9 from f32 logits 128 x 131072, deviation 5", kF32, 128, 131072, top_p, 5),
      sample_row("S3-top_k", "top-k 50 from f32 logits 512 x 128256", kF32, 512, 128256, top_k),
      sample_row("S3-top_p", "top-p 0.9 from f32 logits 512 x 128256", kF32, 512, 128256, top_p),
      renorm_row("S6-top_k", "top-k 50 renorm f32 128 x 131072", 128, 131072, top_k),
      softmax_row("softmax-128x131072", "softmax f32 128 x 131072", 128, 131072),
      top_k_row("S7-sorted", "top-k 256 of f32 1 x 65536, sorted", 1, 65536, 256, true),
  };
}

}  // namespace fulmen::gpu
