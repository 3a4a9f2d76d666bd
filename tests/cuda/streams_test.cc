// SPDX-License-Identifier: Apache-2.0
// Operators of every kind in random order on several streams at once: the bits of one stream that is waited for.
#include <fulmen/attention/call.h>
#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/fused_add_rmsnorm.h>
#include <fulmen/ops/merge_state.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/sample.h>
#include <fulmen/ops/softmax.h>
#include <fulmen/ops/top_k.h>

#include <functional>
#include <random>

#include "tests/support/attention_on_gpu.h"
#include "tests/support/capture.h"
#include "tests/support/gpu_case.h"

namespace fulmen::testing {
namespace {

class CudaStreams : public OnGpu {};

// What one stream works on: an operator reads what others wrote, so that one that starts early changes bits.
struct Lane {
  explicit Lane(int32_t id)
      : rows(3 + 5 * id),
        q(problem(id)),
        attention(q),
        logits(DType::kF32, {rows, 3000}),
        probs(DType::kF32, {rows, 3000}),
        best(DType::kF32, {rows, 20}),
        where(DType::kI32, {rows, 20}),
        tokens(DType::kI32, {rows}),
        hidden(DType::kF16, {rows, 256}),
        residual(DType::kF16, {rows, 256}),
        gated(DType::kF16, {rows, 128}),
        weight(DType::kF16, {256}) {
    logits.fill_normal(uint64_t(id) + 1, 2), hidden.fill_normal(2), residual.fill_normal(3), weight.fill_normal(4);
    for (Tensor* t : {&logits, &probs, &best, &where, &tokens, &hidden, &residual, &gated, &weight})
      gpu.push_back(std::make_unique<GpuTensor>(*t));
  }
  static AttentionCase problem(int32_t id) {
    AttentionCase c;
    c.q_dtype = c.kv_dtype = c.out_dtype = DType::kF16;
    c.num_kv_heads = 1 + id % 2, c.group = 1 + id % 4, c.seed = uint64_t(id) + 1;
    c.lens = {{1, 100 + 30 * id}, {2 + id, 77}, {1, 0}};
    return c;
  }
  TensorView at(size_t i) const { return *gpu[i]; }

  std::vector<std::function<void()>> operators(const Context& c) {
    return {
        [=, this] { softmax({.logits = at(0), .out = at(1)}, c); },
        [=, this] { top_k({.input = at(1), .values = at(2), .indices = at(3)}, c); },
        [=, this] { sample({.input = at(1), .out = at(4), .random = {.seed = 5}}, c); },
        [=, this] { fused_add_rmsnorm({.input = at(5), .residual = at(6), .weight = at(8), .out = at(5)}, c); },
        [=, this] { rmsnorm({.input = at(6), .weight = at(8), .out = at(5)}, c); },
        [=, this] { act_and_mul({.input = at(6), .out = at(7)}, c); },
        [=, this] { batch_attention(attention.args, c); },
    };
  }
  std::vector<Tensor> results() {
    for (auto& t : gpu) t->fetch();
    attention.fetch();
    std::vector<Tensor> all;
    for (Tensor* t : {&probs, &best, &where, &tokens, &hidden, &residual, &gated, &q.out, &q.lse}) all.push_back(*t);
    return all;
  }

  int64_t rows;
  AttentionProblem q;
  OnDevice attention;
  Tensor logits, probs, best, where, tokens, hidden, residual, gated, weight;
  std::vector<std::unique_ptr<GpuTensor>> gpu;
};

TEST_F(CudaStreams, RandomOperatorsEqualASerialRun) {
  if (emulated() || lists_keys()) GTEST_SKIP() << "the emulator has one stream";
  const cuda::CurrentContext current(cuda::device(0).primary);
  constexpr int32_t kStreams = 8;
  std::vector<std::unique_ptr<Lane>> serial, at_once;
  std::vector<std::unique_ptr<Capture>> streams;
  for (int32_t i = 0; i < kStreams; ++i) {
    serial.push_back(std::make_unique<Lane>(i)), at_once.push_back(std::make_unique<Lane>(i));
    streams.push_back(std::make_unique<Capture>());
  }
  std::mt19937_64 rng(3);
  std::vector<std::pair<size_t, size_t>> order;  // (lane, operator)
  for (int32_t i = 0; i < rounds(6000); ++i) order.emplace_back(rng() % kStreams, rng() % 7);
  Capture alone;
  for (const auto& [lane, op] : order) {
    serial[lane]->operators({.stream = alone.stream})[op]();
    if (op == 6) alone.synchronize();
  }
  alone.synchronize();
  for (const auto& [lane, op] : order) at_once[lane]->operators({.stream = streams[lane]->stream})[op]();
  for (auto& s : streams) s->synchronize();
  for (int32_t i = 0; i < kStreams; ++i) {
    const std::vector<Tensor> want = serial[size_t(i)]->results(), got = at_once[size_t(i)]->results();
    for (size_t k = 0; k < want.size(); ++k) EXPECT_TRUE(got[k].same_bytes(want[k])) << "lane " << i << " result " << k;
  }
}

}  // namespace
}  // namespace fulmen::testing
