// SPDX-License-Identifier: Apache-2.0
// top_k_transform on the device.
#include "tests/support/gpu_case.h"
#include "tests/support/top_k_transform_case.h"

namespace fulmen::testing {
namespace {

std::string difference_on_gpu(TransformCase& c) {
  c.out.poison(0x77), c.places.poison(0x77);
  GpuTensor input(c.input), lengths(c.lengths), starts(c.starts), pages(c.pages), batches(c.batches),
      page_starts(c.page_starts), offsets(c.offsets), out(c.out), places(c.places);
  TopKTransformArgs a = c.args;
  a.input = input, a.lengths = lengths, a.out = out;
  if (a.row_starts.defined()) a.row_starts = starts;
  if (a.page_table.defined()) a.page_table = pages, a.row_to_batch = batches;
  if (a.page_starts.defined()) a.page_starts = page_starts;
  if (a.offsets.defined()) a.offsets = offsets;
  if (a.places.defined()) a.places = places;
  top_k_transform(a);
  out.fetch(), places.fetch();
  return c.difference();
}

class CudaTopKTransform : public OnGpu {};

TEST_F(CudaTopKTransform, EqualsTheReference) {
  for (DType dtype : float_types())
    for (Table table : kTables)
      for (bool all_optional : {false, true})
        for (int64_t row_len : {1, 130, 3000}) {
          if (is_slow() && row_len != 130 && all_optional) continue;
          if (row_len != 130 && (dtype != DType::kF32 || table != Table::kPages)) continue;
          for (int64_t k : {int64_t(1), int64_t(20), row_len / 2}) {
            if (k > row_len || k == 0) continue;
            TransformCase c(dtype, 8, row_len, k, table, all_optional, row_len == 130 ? Shape::kTied : Shape::kNormal,
                            k % 2 == 0 ? DType::kI32 : DType::kI64, k == 20 ? 16 : 1);
            c.args.tie_break = all_optional ? TieBreak::kLargeIndex : TieBreak::kSmallIndex;
            EXPECT_EQ(difference_on_gpu(c), "")
                << name_of(dtype) << " len " << row_len << " k " << k << " table " << int(table);
          }
        }
}

TEST_F(CudaTopKTransform, LongRows) {
  for (int64_t row_len : {20000, 65536, 400000}) {
    if (is_slow() && row_len != 20000) continue;
    for (int64_t k : {100, 2048, 5000})
      for (bool all_optional : {false, true})
        for (Shape shape : {Shape::kNormal, Shape::kTied}) {
          if (is_slow() && (shape != Shape::kNormal || k == 100 || (k == 2048) == all_optional)) continue;
          TransformCase c(DType::kF32, is_slow() ? 2 : 6, row_len, k, Table::kPages, all_optional, shape, DType::kI32,
                          64);
          EXPECT_EQ(difference_on_gpu(c), "") << "len " << row_len << " k " << k << " shape " << int(shape);
        }
  }
}

}  // namespace
}  // namespace fulmen::testing
