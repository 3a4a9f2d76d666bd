// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/reference/get_batch_indices_positions.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/within.h"

namespace fulmen::testing {
namespace {

Tensor ints(DType dtype, const std::vector<int64_t>& values) {
  return Tensor(dtype, {int64_t(values.size())}).fill([&](int64_t i) { return double(values[size_t(i)]); });
}
std::vector<int64_t> read(const Tensor& t) {
  std::vector<int64_t> values;
  for (int64_t i = 0; i < t.view().num_elements(); ++i) values.push_back(int64_t(reference::element(t, i)));
  EXPECT_TRUE(t.guards_intact());
  return values;
}

TEST(GetBatchIndicesPositions, NumbersEveryTokenAndMarksPadding) {
  for (DType in : {DType::kI32, DType::kI64})
    for (DType out : {DType::kI32, DType::kI64})
      for (CpuLevel level : levels()) {
        Tensor append_indptr = ints(in, {0, 1, 1, 4}), seq_lens = ints(in, {7, 5, 3});
        Tensor batch_indices(out, {6}), positions(out, {6});
        get_batch_indices_positions({append_indptr, seq_lens, batch_indices, positions}, at(level));
        EXPECT_EQ(read(batch_indices), (std::vector<int64_t>{0, 2, 2, 2, -1, -1}));
        EXPECT_EQ(read(positions), (std::vector<int64_t>{6, 0, 1, 2, 0, 0}));
      }
}

TEST(GetBatchIndicesPositions, ServesManyRequestsOnSeveralThreads) {
  std::vector<int64_t> indptr{3}, lens;  // three tokens belong to nobody
  for (int64_t b = 0; b < 500; ++b) {
    const int64_t n = b * 7 % 13;
    indptr.push_back(indptr.back() + n), lens.push_back(n + b % 50);
  }
  Tensor append_indptr = ints(DType::kI32, indptr), seq_lens = ints(DType::kI32, lens);
  Tensor batch_indices(DType::kI32, {indptr.back() + 2}), positions(DType::kI32, {indptr.back() + 2});
  const GetBatchIndicesPositionsArgs a{append_indptr, seq_lens, batch_indices, positions};
  for (CpuLevel level : levels()) {
    get_batch_indices_positions(a, at(level));
    const reference::BatchIndicesPositions expected = reference::get_batch_indices_positions(a);
    EXPECT_EQ(read(batch_indices), expected.batch_indices);
    EXPECT_EQ(read(positions), expected.positions);
  }
  seq_lens.set(7, double(lens[7] + 1));  // a seeded defect
  EXPECT_NE(read(positions), reference::get_batch_indices_positions(a).positions);
}

TEST(GetBatchIndicesPositions, ZeroSizesAreLegal) {
  Tensor append_indptr = ints(DType::kI32, {0}), seq_lens(DType::kI32, {0}), batch_indices(DType::kI32, {2}),
         positions(DType::kI32, {2});
  get_batch_indices_positions({append_indptr, seq_lens, batch_indices, positions});
  EXPECT_EQ(read(batch_indices), (std::vector<int64_t>{-1, -1}));
}

TEST(GetBatchIndicesPositionsCheck, NamesWhatIsWrong) {
  Tensor append_indptr = ints(DType::kI32, {0, 3, 9}), seq_lens = ints(DType::kI32, {7, 5});
  Tensor batch_indices(DType::kI32, {8}), positions(DType::kI32, {8});
  const GetBatchIndicesPositionsArgs a{append_indptr, seq_lens, batch_indices, positions};
  EXPECT_EQ(error_of([&] { get_batch_indices_positions(a); }),
            "get_batch_indices_positions: append_indptr[2] is 9, expected 3 to 8");
  append_indptr.set(2, 8), seq_lens.set(0, 2);
  EXPECT_EQ(error_of([&] { get_batch_indices_positions(a); }),
            "get_batch_indices_positions: seq_lens[0] is 2, expected the 3 appended tokens or more");
}

TEST(GetBatchIndicesPositionsCheck, RefusesEveryBrokenRule) {
  Tensor append_indptr = ints(DType::kI32, {0, 3, 8}), seq_lens = ints(DType::kI32, {7, 5});
  Tensor batch_indices(DType::kI32, {8}), positions(DType::kI32, {8});
  expect_every_break_refused(kGetBatchIndicesPositionsSchema, {append_indptr, seq_lens, batch_indices, positions},
                             [&](const std::vector<TensorView>& t) {
                               check(GetBatchIndicesPositionsArgs{t[0], t[1], t[2], t[3]});
                             });
}

}  // namespace
}  // namespace fulmen::testing
