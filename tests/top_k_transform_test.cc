// SPDX-License-Identifier: Apache-2.0
#include <fulmen/ops/top_k_transform.h>

#include "tests/support/levels.h"
#include "tests/support/schema_breaker.h"
#include "tests/support/top_k_transform_case.h"

namespace fulmen::testing {
namespace {

TEST(TopKTransform, EqualsTheReferenceAtEveryLevel) {
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16})
    for (Table table : kTables)
      for (bool all_optional : {false, true})
        for (int64_t row_len : {1, 40, 999, 5000})
          for (int64_t k : {int64_t(1), int64_t(64), row_len / 2, row_len}) {
            if (k > row_len || k == 0 || (dtype != DType::kF32 && row_len != 999)) continue;
            if (row_len == 5000 && (table != Table::kPages || k == 64)) continue;  // the reference sorts
            TransformCase c(dtype, 14, row_len, k, table, all_optional, row_len == 40 ? Shape::kTied : Shape::kNormal,
                            k % 2 == 0 ? DType::kI32 : DType::kI64, row_len == 999 ? 16 : 1);
            for (TieBreak tie_break : {TieBreak::kSmallIndex, TieBreak::kLargeIndex})
              for (CpuLevel level : levels()) {
                c.args.tie_break = tie_break;
                c.out.poison(0x77), c.places.poison(0x77);
                top_k_transform(c.args, at(level));
                EXPECT_EQ(c.difference(), "") << runtime::name_of(level) << " " << name_of(dtype) << " len " << row_len
                                              << " k " << k << " table " << int(table);
              }
          }
}

TEST(TopKTransform, NanIsLargest) {
  TransformCase c(DType::kF32, 3, 20, 2, Table::kNone, false, Shape::kNormal);
  c.lengths.fill([](int64_t) { return 20; });
  c.input.set(7, double(NAN)), c.input.set(27, INFINITY);
  top_k_transform(c.args);
  EXPECT_EQ(c.difference(), "");
}

TEST(TopKTransform, ReferenceCatchesSeededDefects) {
  TransformCase c(DType::kF32, 5, 300, 20, Table::kPages, true, Shape::kTied, DType::kI32, 4);
  top_k_transform(c.args);
  EXPECT_EQ(c.difference(), "");
  c.args.tie_break = TieBreak::kLargeIndex;
  EXPECT_NE(c.difference(), "") << "ties by the other end";
  c.args.tie_break = TieBreak::kSmallIndex;
  c.args.page_size = 5;
  EXPECT_NE(c.difference(), "") << "page size";
}

TEST(TopKTransformCheck, NamesWhatIsWrong) {
  TransformCase c(DType::kF32, 2, 30, 20, Table::kPages, true, Shape::kNormal);
  TopKTransformArgs a = c.args;
  a.input.shape[1] = 10;
  EXPECT_EQ(error_of([&] { top_k_transform(a); }), "top_k_transform: k is 20, expected at most row_len 10");
  a = c.args, a.offsets = c.offsets;
  EXPECT_EQ(error_of([&] { top_k_transform(a); }), "top_k_transform: offsets given beside page_table");
  a = c.args, a.page_table = {};
  EXPECT_EQ(error_of([&] { top_k_transform(a); }), "top_k_transform: row_to_batch given without page_table");
  a = c.args, a.page_size = 0;
  EXPECT_EQ(error_of([&] { top_k_transform(a); }), "top_k_transform: page_size is 0, expected 1 or more");
  const TopKTransformArgs& b = c.args;
  expect_every_break_refused(
      kTopKTransformSchema,
      {b.input, b.lengths, b.row_starts, b.page_table, b.row_to_batch, b.page_starts, TensorView{}, b.out, b.places},
      [&](const std::vector<TensorView>& t) {
        check(TopKTransformArgs{.input = t[0],
                                .lengths = t[1],
                                .row_starts = t[2],
                                .page_table = t[3],
                                .row_to_batch = t[4],
                                .page_starts = t[5],
                                .offsets = t[6],
                                .out = t[7],
                                .places = t[8]});
      });
  TransformCase none(DType::kF32, 3, 30, 0, Table::kNone, false, Shape::kNormal);
  EXPECT_NO_THROW(top_k_transform(none.args));
}

}  // namespace
}  // namespace fulmen::testing
