// SPDX-License-Identifier: Apache-2.0
#include <fulmen/core/schema.h>

#include <cstdlib>

#include "src/ops/overlap.h"

namespace fulmen {
namespace {

std::string describe(const OpSchema& schema, const Axis& axis) {
  if (axis.kind != Axis::kDim) return {};
  std::string text(schema.dims()[size_t(axis.dim)]);
  if (axis.scale != 1) text = std::to_string(axis.scale) + "*" + text;
  if (axis.add != 0) text += "+" + std::to_string(axis.add);
  return " (" + text + ")";
}

std::string number(int64_t n) { return std::to_string(n); }

// Kernels compute offsets in int64, in elements and in bytes: none may overflow.
constexpr int64_t kMostElements = int64_t(1) << 59;  // times the largest element, 8 bytes, and once more

// The bytes from a tensor's first element to the end of its last.
struct Extent {
  uint64_t begin, end;
  int32_t row;
};

struct Checker {
  const OpSchema& schema;
  const TensorView* const* tensors;
  Dims dims;
  const TensorView* first = nullptr;  // the tensor whose device the others must share
  int32_t num_extents = 0, num_written = 0;
  Extent extents[OpSchema::kMaxTensors];         // of the tensors with elements
  const Extent* written[OpSchema::kMaxTensors];  // those of them that are written

  Checker(const OpSchema& s, const TensorView* const* t) : schema(s), tensors(t) {  // extents are set as they come
    dims.schema = &s;
    dims.sizes.fill(-1);
  }

  void check(int32_t index, const TensorView& t) {
    const TensorRow& row = schema.rows()[size_t(index)];
    if (!t.defined()) {
      if (row.presence == Presence::kRequired) fail(schema.op(), row.name, "is missing");
      return;
    }
    if (int64_t last = 0; fits(row, schema.shape(index), t, last)) {
      const uint64_t begin = reinterpret_cast<uintptr_t>(t.data);
      Extent& e = extents[num_extents++];
      e = {begin, begin + uint64_t((last + 1) * size_of(t.dtype)), index};
      if (row.access != Access::kRead) written[num_written++] = &e;
      return;
    }
    if (!row.dtypes.has(t.dtype))
      fail(schema.op(), row.name, std::string("dtype is ") + name_of(t.dtype) + ", expected " + to_string(row.dtypes));
    check_shape(row, schema.shape(index), t);
    check_strides(row, t);
    check_extent(row, t);
    check_memory(row, t);
  }

  // All of what follows in one pass, since every call pays for it. False: the rest finds out what is wrong, or that
  // nothing is (a tensor without elements).
  bool fits(const TensorRow& row, const OpSchema::Shape& shape, const TensorView& t, int64_t& last) {
    int32_t missing = shape.rank - t.rank, at = 0;
    if (!row.dtypes.has(t.dtype) || missing < 0 || missing > shape.num_optional) return false;
    int64_t count = 1;
    bool bad = false;
    for (int32_t i = 0; i < shape.rank; ++i) {
      const Axis& axis = shape.axes[size_t(i)];
      const bool skip = axis.optional && missing > 0;
      const int64_t size = skip ? 1 : t.shape[at];
      if (size <= 0 || !binds(axis, size)) return false;
      if (skip) {
        --missing;
        continue;
      }
      const int64_t stride = t.strides[at++];
      int64_t offset = 0;
      bad |= __builtin_mul_overflow(count, size, &count);
      if (size == 1) continue;
      bad |= stride < 0 || (stride == 0 && row.access != Access::kRead) || (at == t.rank && stride != 1);
      bad |= __builtin_mul_overflow(size - 1, stride, &offset) || __builtin_add_overflow(last, offset, &last);
    }
    if (first == nullptr) first = &t;
    return !bad && count <= kMostElements && last <= kMostElements && t.data != nullptr &&
           reinterpret_cast<uintptr_t>(t.data) % uintptr_t(size_of(t.dtype)) == 0 &&
           t.device_type == first->device_type && t.device_id == first->device_id;
  }

  // What is written shares no element with another tensor, except where its row allows it.
  void check_overlaps() const {
    for (int32_t i = 0; i < num_written; ++i) {
      const Extent& w = *written[i];
      int32_t num_met = 0;  // itself is one
      for (int32_t j = 0; j < num_extents; ++j)
        num_met += int32_t(extents[j].begin < w.end) & int32_t(w.begin < extents[j].end);
      if (num_met > 1) check_overlaps_of(w);
    }
  }

  void check_overlaps_of(const Extent& w) const {
    const TensorView& t = *tensors[w.row];
    for (int32_t j = 0; j < num_extents; ++j) {
      const Extent& e = extents[j];
      const TensorView& other = *tensors[e.row];
      if (e.row == w.row || e.begin >= w.end || w.begin >= e.end) continue;
      const bool may_lie = schema.may_lie_on(w.row) >> uint32_t(e.row) & 1u;
      if (may_lie && lies_on(t, other)) continue;
      if (schema.may_lie_on(e.row) >> uint32_t(w.row) & 1u && lies_on(other, t)) continue;
      if (is_no_memory(t.data) || is_no_memory(other.data) || !shares_elements(t, other)) continue;
      const std::string_view name = schema.rows()[size_t(e.row)].name;
      const int64_t behind = int64_t(w.begin - e.begin);
      std::string text = "shares memory with " + std::string(name) + ": it begins " + number(std::abs(behind)) +
                         (behind < 0 ? " bytes before it" : " bytes behind its start") + ", expected memory of its own";
      if (may_lie) text.append(", or ").append(name).append(" itself, element for element");
      fail(schema.op(), schema.rows()[size_t(w.row)].name, text);
    }
  }

  bool binds(const Axis& axis, int64_t size) {
    if (axis.kind == Axis::kAny) return true;
    if (axis.kind == Axis::kConstant) return size == axis.add;
    int64_t& bound = dims.sizes[size_t(axis.dim)];
    if (bound >= 0) return size == bound * axis.scale + axis.add;
    if (size < axis.add || (axis.scale != 1 && (size - axis.add) % axis.scale != 0)) return false;
    bound = axis.scale == 1 ? size - axis.add : (size - axis.add) / axis.scale;
    return true;
  }

  void check_shape(const TensorRow& row, const OpSchema::Shape& shape, const TensorView& t) {
    if (t.rank > shape.rank || t.rank < shape.rank - shape.num_optional)
      fail(schema.op(), row.name,
           "rank is " + number(t.rank) + ", expected " + number(shape.rank) + " [" + std::string(row.shape) + "]");
    int32_t missing = shape.rank - t.rank, at = 0;
    for (int32_t i = 0; i < shape.rank; ++i) {
      const Axis& axis = shape.axes[size_t(i)];
      const bool skip = axis.optional && missing > 0;
      missing -= skip;
      check_size(row, axis, skip ? -1 : at, skip ? 1 : t.shape[at]);
      at += !skip;
    }
  }

  void check_size(const TensorRow& row, const Axis& axis, int32_t at, int64_t size) {
    if (size < 0) fail(schema.op(), row.name, "dim " + number(at) + " is " + number(size) + ", expected 0 or more");
    if (axis.kind == Axis::kAny) return;
    int64_t expected = axis.add;
    if (axis.kind == Axis::kDim) {
      int64_t& bound = dims.sizes[size_t(axis.dim)];
      if (bound < 0 && size >= axis.add && (size - axis.add) % axis.scale == 0) bound = (size - axis.add) / axis.scale;
      if (bound < 0)
        fail(schema.op(), row.name,
             "dim " + number(at) + describe(schema, axis) + " is " + number(size) + ", which no size fits");
      expected = bound * axis.scale + axis.add;
    }
    if (size != expected)
      fail(schema.op(), row.name,
           "dim " + number(at) + describe(schema, axis) + " is " + number(size) + ", expected " + number(expected));
  }

  void check_strides(const TensorRow& row, const TensorView& t) {
    if (t.num_elements() == 0) return;  // nothing to reach; a contiguous [4, 0] has stride 0
    for (int32_t i = 0; i < t.rank; ++i) {
      if (t.shape[i] <= 1) continue;
      const int64_t stride = t.strides[i];
      if (i == t.rank - 1 && stride != 1)
        fail(schema.op(), row.name, "stride of the last dim is " + number(stride) + ", expected 1");
      if (stride < 0 || (stride == 0 && row.access != Access::kRead))
        fail(schema.op(), row.name,
             "stride of dim " + number(i) + " is " + number(stride) + ", expected " +
                 (stride < 0 ? "0 or more" : "not 0 in a tensor that is written"));
    }
  }

  void check_extent(const TensorRow& row, const TensorView& t) {
    int64_t count = 1, last = 0;
    bool overflows = false;
    for (int32_t i = 0; i < t.rank; ++i) {
      int64_t offset = 0;
      if (t.shape[i] == 0) return;
      overflows |= __builtin_mul_overflow(count, t.shape[i], &count);
      if (t.shape[i] > 1) overflows |= __builtin_mul_overflow(t.shape[i] - 1, t.strides[i], &offset);
      overflows |= __builtin_add_overflow(last, offset, &last);
    }
    if (overflows || count > kMostElements || last > kMostElements)
      fail(schema.op(), row.name, "spans more memory than a machine can address");
  }

  void check_memory(const TensorRow& row, const TensorView& t) {
    if (t.num_elements() > 0 && t.data == nullptr) fail(schema.op(), row.name, "pointer is null");
    if (reinterpret_cast<uintptr_t>(t.data) % uintptr_t(size_of(t.dtype)) != 0)
      fail(schema.op(), row.name, "pointer is not aligned to its element of " + number(size_of(t.dtype)) + " bytes");
    if (first == nullptr) first = &t;
    if (t.device_type != first->device_type || t.device_id != first->device_id)
      fail(schema.op(), row.name, "is on another device than " + std::string(schema.rows()[0].name));
  }
};

}  // namespace

std::string to_string(DTypes types) {
  std::string text;
  int32_t left = __builtin_popcount(types.mask);
  for (int32_t i = 0; i < kNumDTypes; ++i) {
    if (!types.has(DType(i))) continue;
    text += name_of(DType(i));
    text += --left > 1 ? ", " : left == 1 ? " or " : "";
  }
  return text;
}

Dims check(const OpSchema& schema, std::initializer_list<const TensorView*> tensors) {
  Checker checker(schema, tensors.begin());
  int32_t index = 0;
  for (const TensorView* t : tensors) checker.check(index++, *t);
  checker.check_overlaps();
  return checker.dims;
}

}  // namespace fulmen
