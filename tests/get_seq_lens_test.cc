// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/get_seq_lens.h>
#include <fulmen/reference/get_seq_lens.h>

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

TEST(GetSeqLens, CountsFullPagesAndTheLast) {
  for (DType in : {DType::kI32, DType::kI64})
    for (DType out : {DType::kI32, DType::kI64})
      for (CpuLevel level : levels()) {
        Tensor indptr = ints(in, {3, 4, 4, 9}), last_page_len = ints(in, {1, 77, 16}), seq_lens(out, {3});
        get_seq_lens({indptr, last_page_len, seq_lens, 16}, at(level));
        EXPECT_EQ(read(seq_lens), (std::vector<int64_t>{1, 0, 80}));  // no page: 0, whatever last_page_len holds
        EXPECT_EQ(read(seq_lens), reference::get_seq_lens({indptr, last_page_len, seq_lens, 16}));
        EXPECT_NE(read(seq_lens), reference::get_seq_lens({indptr, last_page_len, seq_lens, 17}));  // a seeded defect
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
