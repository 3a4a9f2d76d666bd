// SPDX-License-Identifier: Apache-2.0
// get_batch_indices_positions and get_seq_lens: integers, compared exactly with the formulas.
#include <fulmen/ops/get_batch_indices_positions.h>
#include <fulmen/ops/get_seq_lens.h>

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
  std::vector<int64_t> indptr{0}, lens, batch, position;
  for (int64_t b = 0; b < 500; ++b) {
    const int64_t n = b * 7 % 13, len = n + b % 50;
    for (int64_t i = 0; i < n; ++i) batch.push_back(b), position.push_back(len - n + i);
    indptr.push_back(indptr.back() + n), lens.push_back(len);
  }
  Tensor append_indptr = ints(DType::kI32, indptr), seq_lens = ints(DType::kI32, lens);
  Tensor batch_indices(DType::kI32, {indptr.back()}), positions(DType::kI32, {indptr.back()});
  get_batch_indices_positions({append_indptr, seq_lens, batch_indices, positions}, at(CpuLevel::kScalar));
  EXPECT_EQ(read(batch_indices), batch);
  EXPECT_EQ(read(positions), position);
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

TEST(GetSeqLens, CountsFullPagesAndTheLast) {
  for (DType in : {DType::kI32, DType::kI64})
    for (DType out : {DType::kI32, DType::kI64})
      for (CpuLevel level : levels()) {
        Tensor indptr = ints(in, {3, 4, 4, 9}), last_page_len = ints(in, {1, 77, 16}), seq_lens(out, {3});
        get_seq_lens({indptr, last_page_len, seq_lens, 16}, at(level));
        EXPECT_EQ(read(seq_lens), (std::vector<int64_t>{1, 0, 80}));  // no page: 0, whatever last_page_len holds
      }
}

TEST(GetSeqLensCheck, NamesWhatIsWrong) {
  Tensor indptr = ints(DType::kI32, {0, 1, 3}), last_page_len = ints(DType::kI32, {4, 5}), seq_lens(DType::kI32, {2});
  EXPECT_EQ(error_of([&] {
              get_seq_lens({indptr, last_page_len, seq_lens, 4});
            }),
            "get_seq_lens: last_page_len[1] is 5, expected 1 to page_size 4");
  EXPECT_EQ(error_of([&] {
              get_seq_lens({indptr, last_page_len, seq_lens, 0});
            }),
            "get_seq_lens: page_size is 0, expected 1 or more");
  indptr.set(2, 0);
  EXPECT_EQ(error_of([&] {
              get_seq_lens({indptr, last_page_len, seq_lens, 8});
            }).substr(0, 53),
            "get_seq_lens: kv_indptr[2] is 0, expected 1 to 922337");
}

TEST(GetSeqLensCheck, RefusesEveryBrokenRule) {
  Tensor indptr = ints(DType::kI32, {0, 1, 3}), last_page_len = ints(DType::kI32, {4, 5}), seq_lens(DType::kI32, {2});
  expect_every_break_refused(kGetSeqLensSchema, {indptr, last_page_len, seq_lens},
                             [&](const std::vector<TensorView>& t) {
                               check(GetSeqLensArgs{t[0], t[1], t[2], 8});
                             });
}

}  // namespace
}  // namespace fulmen::testing
