// SPDX-License-Identifier: Apache-2.0
// Negative tests made from the schema: starting from a valid call, breaks one rule of one tensor at a time and expects
// a typed error that names the op and that tensor.
#pragma once
#include <fulmen/core/schema.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace fulmen::testing {

struct Break {
  std::string what;
  TensorView tensor;
  bool may_pass = false;  // a size that only this tensor binds may take another value
};

inline std::vector<Break> breaks_of(const TensorRow& row, const TensorView& t) {
  std::vector<Break> all;
  if (row.presence == Presence::kRequired) all.push_back({"missing", TensorView{}});
  for (int32_t d = 0; d < kNumDTypes; ++d)
    if (!row.dtypes.has(DType(d)) && size_of(DType(d)) <= size_of(t.dtype)) {
      TensorView b = t;
      b.dtype = DType(d);
      all.push_back({std::string("dtype ") + name_of(DType(d)), b});
    }
  TensorView b = t;
  b.rank = 0;
  all.push_back({"rank 0", b});
  for (int32_t i = 0; i < t.rank; ++i) {
    b = t;
    b.shape[i] += 1;
    all.push_back({"dim " + std::to_string(i) + " + 1", b, true});
    b.shape[i] = -1;
    all.push_back({"dim " + std::to_string(i) + " negative", b});
    if (t.shape[i] > 1) {
      b = t;
      b.strides[i] = i == t.rank - 1 ? 2 : -1;
      all.push_back({"stride " + std::to_string(i), b});
    }
  }
  if (t.num_elements() > 0) {
    b = t;
    b.data = nullptr;
    all.push_back({"null", b});
  }
  if (size_of(t.dtype) > 1) {
    b = t;
    b.data = static_cast<char*>(t.data) + 1;
    all.push_back({"misaligned", b});
  }
  return all;
}

// A tensor that is written, moved to the second of another's elements.
inline std::vector<Break> overlaps_of(const OpSchema& schema, size_t written, const std::vector<TensorView>& valid) {
  std::vector<Break> all;
  const TensorView& t = valid[written];
  if (schema.rows()[written].access == Access::kRead || !t.defined() || t.num_elements() == 0) return all;
  for (size_t i = 0; i < valid.size(); ++i) {
    const TensorView& other = valid[i];
    if (i == written || !other.defined() || other.rank == 0 || other.num_elements() == 0) continue;
    if (other.shape[other.rank - 1] * size_of(other.dtype) <= size_of(t.dtype)) continue;
    TensorView b = t;
    b.data = static_cast<char*>(other.data) + size_of(t.dtype);
    all.push_back({"the memory of " + std::string(schema.rows()[i].name), b});
  }
  return all;
}

// check(tensors) must throw for every break. Tensors that were not given (rank -1) are left alone.
template <class F>
void expect_every_break_refused(const OpSchema& schema, const std::vector<TensorView>& valid, F check) {
  check(valid);
  for (size_t i = 0; i < valid.size(); ++i) {
    if (!valid[i].defined()) continue;
    std::vector<Break> breaks = breaks_of(schema.rows()[i], valid[i]);
    for (Break& b : overlaps_of(schema, i, valid)) breaks.push_back(std::move(b));
    for (const Break& b : breaks) {
      std::vector<TensorView> broken = valid;
      broken[i] = b.tensor;
      try {
        check(broken);
        EXPECT_TRUE(b.may_pass) << schema.op() << ": accepted " << schema.rows()[i].name << " with " << b.what;
      } catch (const Error& e) {
        EXPECT_EQ(e.code, Code::kInvalidArgument) << e.what();
        EXPECT_EQ(e.message.rfind(std::string(schema.op()) + ": ", 0), 0u) << e.what();
      }
    }
  }
}

}  // namespace fulmen::testing
