// SPDX-License-Identifier: Apache-2.0
// Which tensors share memory, against a count of every byte; and what the schema's check makes of it.
#include "src/ops/overlap.h"

#include <fulmen/ops/act_and_mul.h>
#include <fulmen/ops/append_paged_kv_cache.h>
#include <fulmen/ops/attention.h>
#include <fulmen/ops/rmsnorm.h>
#include <fulmen/ops/rope.h>
#include <fulmen/ops/softmax.h>
#include <gtest/gtest.h>

#include <random>
#include <set>

namespace fulmen {
namespace {

TensorView strided(void* data, DType dtype, std::initializer_list<int64_t> shape,
                   std::initializer_list<int64_t> strides) {
  TensorView t = view_of(static_cast<float*>(data), shape);
  t.dtype = dtype;
  int32_t i = 0;
  for (int64_t s : strides) t.strides[i++] = s;
  return t;
}

std::set<int64_t> bytes_of(const TensorView& t, const char* base) {
  std::set<int64_t> all;
  for (int64_t n = 0; n < t.num_elements(); ++n) {
    int64_t offset = 0, rest = n;
    for (int32_t i = t.rank; i-- > 0; rest /= t.shape[i]) offset += rest % t.shape[i] * t.strides[i];
    for (int64_t b = 0; b < size_of(t.dtype); ++b)
      all.insert(static_cast<const char*>(t.data) - base + offset * size_of(t.dtype) + b);
  }
  return all;
}

TEST(Overlap, AgreesWithACountOfBytes) {
  static char memory[1 << 16];
  std::mt19937 random(7);
  const auto below = [&](int64_t n) { return int64_t(random() % uint64_t(n)); };
  int32_t num_sharing = 0;
  for (int32_t round = 0; round < 20000; ++round) {
    TensorView t[2];
    const int64_t width = 1 + below(6), rows = 1 + below(5), pitch = width + below(4);
    for (TensorView& v : t) {
      const DType dtype = below(2) == 0 ? DType::kF16 : DType::kF32;
      v = strided(memory, dtype, {1 + below(4), 1 + below(rows), 1 + below(width)}, {pitch * rows, pitch, 1});
      if (below(3) == 0) v.strides[0] = below(40);
      if (below(8) == 0) std::swap(v.shape[0], v.shape[1]), std::swap(v.strides[0], v.strides[1]);
      v.data = memory + below(60) * size_of(dtype);
    }
    const std::set<int64_t> a = bytes_of(t[0], memory), b = bytes_of(t[1], memory);
    const bool shares = std::any_of(a.begin(), a.end(), [&](int64_t at) { return b.count(at) > 0; });
    num_sharing += shares;
    ASSERT_EQ(shares_elements(t[0], t[1]), shares) << "round " << round;
    ASSERT_EQ(shares_elements(t[1], t[0]), shares) << "round " << round;
  }
  EXPECT_GT(num_sharing, 2000);
  EXPECT_LT(num_sharing, 18000);
}

// Strides that do not nest, and many of them: an answer comes, and never a wrong "no".
TEST(Overlap, EndsWhereStridesDoNotNest) {
  static char memory[64];
  const TensorView a = strided(memory, DType::kU8, {1 << 20, 1 << 20, 1}, {1000003, 1009, 1});
  const TensorView b = strided(memory + 1, DType::kU8, {1 << 20, 1 << 20, 1}, {999983, 1013, 1});
  EXPECT_TRUE(shares_elements(a, b));
}

std::string refusal(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& e) { return e.message; }
  return {};
}

TEST(Overlap, NormsAcceptTheirInputAndNoPartOfIt) {
  alignas(64) static float x[64], w[8];
  RmsNormArgs a{.input = view_of(x, {4, 8}), .weight = view_of(w, {8}), .out = view_of(x, {4, 8})};
  EXPECT_EQ(refusal([&] { check(a); }), "");
  a.out = view_of(x, {4, 1, 8});  // the same with one head
  EXPECT_EQ(refusal([&] { check(a); }), "");
  a.out = view_of(x + 4, {4, 8});
  EXPECT_EQ(
      refusal([&] { check(a); }),
      "rmsnorm: out shares memory with input: it begins 16 bytes behind its start, expected memory of its own, or "
      "input itself, element for element");
  a.out = view_of(x, {4, 8}), a.input.data = x + 1;
  EXPECT_NE(refusal([&] { check(a); }).find("out shares memory with input: it begins 4 bytes before it"),
            std::string::npos);
  a.input = view_of(x, {4, 8}), a.out = strided(x, DType::kF32, {4, 8}, {16, 1});  // other rows
  EXPECT_NE(refusal([&] { check(a); }).find("out shares memory with input"), std::string::npos);
  a.out = view_of(x + 32, {4, 8}), a.weight = view_of(x + 32, {8});
  EXPECT_NE(refusal([&] { check(a); }).find("out shares memory with weight"), std::string::npos);
}

TEST(Overlap, SlicesOfOneBufferAreTensorsOfTheirOwn) {
  alignas(64) static float buffer[1024];
  // out as columns beside the input; act_and_mul's out as the first half of its input.
  RmsNormArgs norm{.input = strided(buffer, DType::kF32, {4, 8}, {32, 1}),
                   .weight = view_of(buffer + 512, {8}),
                   .out = strided(buffer + 8, DType::kF32, {4, 8}, {32, 1})};
  EXPECT_EQ(refusal([&] { check(norm); }), "");
  ActAndMulArgs act{.input = view_of(buffer, {4, 16}), .out = strided(buffer, DType::kF32, {4, 8}, {16, 1})};
  EXPECT_EQ(refusal([&] { check(act); }), "");
  act.out = strided(buffer + 8, DType::kF32, {4, 8}, {16, 1});  // the second half
  EXPECT_NE(refusal([&] { check(act); }).find("out shares memory with input"), std::string::npos);
  // q, k and v of one projection, turned in place.
  RopeArgs rope;
  static int32_t pos[4] = {};
  rope.q = rope.q_out = strided(buffer, DType::kF32, {4, 4, 8}, {64, 8, 1});
  rope.k = rope.k_out = strided(buffer + 32, DType::kF32, {4, 2, 8}, {64, 8, 1});
  rope.pos_ids = view_of(pos, {4});
  EXPECT_EQ(refusal([&] { check(rope); }), "");
  rope.k = rope.k_out = strided(buffer + 28, DType::kF32, {4, 2, 8}, {64, 8, 1});
  EXPECT_NE(refusal([&] { check(rope); }).find("shares memory with"), std::string::npos);
}

TEST(Overlap, HalvesOfACacheInBothLayouts) {
  alignas(64) static float cache[2 * 3 * 4 * 2 * 8], rows[2 * 2 * 8];
  static int32_t ids[4] = {0, 1, 2, 0};
  const auto args = [&](std::initializer_list<int64_t> strides, int64_t half) {
    AppendPagedKvCacheArgs a;
    a.append_key = view_of(rows, {1, 2, 8}), a.append_value = view_of(rows + 16, {1, 2, 8});
    a.batch_indices = view_of(ids, {1}), a.positions = view_of(ids, {1});
    a.k_cache = strided(cache, DType::kF32, {3, 4, 2, 8}, strides);
    a.v_cache = strided(cache + half, DType::kF32, {3, 4, 2, 8}, strides);
    a.kv_indices = view_of(ids, {3}), a.kv_indptr = view_of(ids, {2}), a.last_page_len = view_of(ids, {1});
    return a;
  };
  EXPECT_EQ(refusal([&] { check(args({128, 16, 8, 1}, 64)); }), "");  // [page, 2, slot, head, dim]
  EXPECT_EQ(refusal([&] { check(args({128, 8, 32, 1}, 64)); }), "");  // [page, 2, head, slot, dim]
  EXPECT_EQ(refusal([&] { check(args({128, 32, 16, 1}, 8)); }), "");  // K and V of a head behind one another
  EXPECT_NE(refusal([&] {
              check(args({128, 16, 8, 1}, 60));
            }).find("k_cache shares memory with v_cache"),
            std::string::npos);
  EXPECT_NE(refusal([&] {
              check(args({128, 16, 8, 1}, 0));
            }).find("k_cache shares memory with v_cache"),
            std::string::npos);
}

TEST(Overlap, TensorsWithoutElementsOrMemoryShareNothing) {
  alignas(64) static float x[64];
  RmsNormArgs a{.input = view_of(x, {0, 8}), .weight = view_of(x, {8}), .out = view_of(x, {0, 8})};
  EXPECT_EQ(refusal([&] { check(a); }), "");
  float* nowhere = static_cast<float*>(no_memory());
  a = {.input = view_of(nowhere, {4, 8}), .weight = view_of(nowhere, {8}), .out = view_of(nowhere + 1, {4, 8})};
  EXPECT_EQ(refusal([&] { check(a); }), "");
}

}  // namespace
}  // namespace fulmen
