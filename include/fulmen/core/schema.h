// SPDX-License-Identifier: Apache-2.0
// A schema is an op's contract about its tensors, written once as rows of text:
//   {"k_cache", "num_pages page_size num_kv_heads head_dim_qk", kCache, Access::kRead, "keys"}
// check() validates a call against it, the docs print it, the fuzzer breaks it one rule at a time.
//
// Shape text: one word per dimension. A name binds the dimension at its first use and must match afterwards; "name+1"
// and "2*name" are derived from it; a number is itself; "*" matches anything. A last word "name?" style dimension may
// be missing: "n heads? d" accepts [n, d] and [n, heads, d] and binds heads to 1 when it is missing.
#pragma once
#include <fulmen/core/error.h>
#include <fulmen/core/tensor_view.h>

#include <array>
#include <span>
#include <string_view>

namespace fulmen {

// A set of dtypes.
struct DTypes {
  uint32_t mask = 0;
  constexpr bool has(DType t) const { return mask >> uint32_t(t) & 1u; }
  constexpr DTypes operator|(DTypes other) const { return {mask | other.mask}; }
};
template <class... T>
constexpr DTypes of(T... types) {
  return {((1u << uint32_t(types)) | ... | 0u)};
}
inline constexpr DTypes kF32 = of(DType::kF32), kI32 = of(DType::kI32), kU8 = of(DType::kU8);
inline constexpr DTypes kBytes = of(DType::kU8, DType::kBool);
inline constexpr DTypes kIds = of(DType::kI32, DType::kI64);
inline constexpr DTypes kFloats = of(DType::kF32, DType::kF16, DType::kBF16);
inline constexpr DTypes kFp8 = of(DType::kE4M3, DType::kE5M2);

enum class Access : uint8_t { kRead, kWrite, kReadWrite };
enum class Presence : uint8_t { kRequired, kOptional };

struct TensorRow {
  std::string_view name, shape;
  DTypes dtypes;
  Access access = Access::kRead;
  Presence presence = Presence::kRequired;
  std::string_view doc = {};
  std::string_view may_lie_on = {};  // of a written tensor: inputs, named one after another, each element at its place
};

// One word of a shape text, parsed at compile time: size = scale * dims[dim] + add, or the constant `add`, or anything.
struct Axis {
  enum Kind : int8_t { kDim, kConstant, kAny } kind = kAny;
  bool optional = false;
  int8_t dim = -1;
  int64_t scale = 1, add = 0;
};

class OpSchema {
 public:
  static constexpr int32_t kMaxTensors = 24, kMaxDims = 24;
  struct Shape {
    std::array<Axis, TensorView::kMaxRank> axes{};
    int32_t rank = 0, num_optional = 0;
  };

  consteval OpSchema(std::string_view op, std::initializer_list<TensorRow> rows) : op_(op) {
    for (const TensorRow& row : rows) {
      rows_[num_rows_] = row;
      shapes_[num_rows_++] = parse(row.shape);
    }
    for (int32_t i = 0; i < num_rows_; ++i) hosts_[i] = rows_named(rows_[i].may_lie_on);
  }

  constexpr std::string_view op() const { return op_; }
  constexpr std::span<const TensorRow> rows() const { return {rows_.data(), size_t(num_rows_)}; }
  constexpr std::span<const std::string_view> dims() const { return {dims_.data(), size_t(num_dims_)}; }
  constexpr const Shape& shape(int32_t row) const { return shapes_[row]; }
  constexpr uint32_t may_lie_on(int32_t row) const { return hosts_[row]; }  // a bit per row
  constexpr int32_t dim_index(std::string_view name) const {
    for (int32_t i = 0; i < num_dims_; ++i)
      if (dims_[i] == name) return i;
    return -1;
  }

 private:
  constexpr Shape parse(std::string_view text) {
    Shape shape;
    while (!text.empty()) {
      const size_t end = text.find(' ') == text.npos ? text.size() : text.find(' ');
      if (end > 0) shape.num_optional += (shape.axes[shape.rank++] = parse_axis(text.substr(0, end))).optional;
      text.remove_prefix(end < text.size() ? end + 1 : end);
    }
    return shape;
  }

  constexpr Axis parse_axis(std::string_view word) {
    Axis axis;
    if (word == "*") return axis;
    if (word.back() == '?') axis.optional = true, word.remove_suffix(1);
    if (const size_t star = word.find('*'); star != word.npos) {
      axis.scale = parse_number(word.substr(0, star));
      word.remove_prefix(star + 1);
    }
    if (const size_t plus = word.find('+'); plus != word.npos) {
      axis.add = parse_number(word.substr(plus + 1));
      word = word.substr(0, plus);
    }
    if (word[0] >= '0' && word[0] <= '9') {
      axis.kind = Axis::kConstant;
      axis.add = parse_number(word);
      return axis;
    }
    axis.kind = Axis::kDim;
    axis.dim = int8_t(dim_index(word));
    if (axis.dim < 0) dims_[axis.dim = int8_t(num_dims_++)] = word;
    return axis;
  }

  consteval uint32_t rows_named(std::string_view words) const {
    uint32_t mask = 0;
    while (!words.empty()) {
      const size_t end = words.find(' ') == words.npos ? words.size() : words.find(' ');
      int32_t row = 0;
      while (rows_[row].name != words.substr(0, end)) ++row;  // none: does not compile
      mask |= 1u << row;
      words.remove_prefix(end < words.size() ? end + 1 : end);
    }
    return mask;
  }

  static constexpr int64_t parse_number(std::string_view digits) {
    int64_t n = 0;
    for (char c : digits) n = n * 10 + (c - '0');
    return n;
  }

  std::string_view op_;
  std::array<TensorRow, kMaxTensors> rows_{};
  std::array<Shape, kMaxTensors> shapes_{};
  std::array<uint32_t, kMaxTensors> hosts_{};
  std::array<std::string_view, kMaxDims> dims_{};
  int32_t num_rows_ = 0, num_dims_ = 0;
};

// The sizes that a call bound to the schema's names; -1 where only an absent optional tensor would have bound one.
struct Dims {
  const OpSchema* schema;
  std::array<int64_t, OpSchema::kMaxDims> sizes;
  int64_t operator[](std::string_view name) const { return sizes[size_t(schema->dim_index(name))]; }
};

// Throws Error{kInvalidArgument} unless every tensor keeps its row: present, rank, dtype, sizes, strides (last axis
// contiguous; no negative ones; nothing written through stride 0), alignment, pointer, and one device for all; and
// unless what is written lies on memory of its own, or element for element on a tensor that its row names.
Dims check(const OpSchema& schema, std::initializer_list<const TensorView*> tensors);

// "float32, float16 or bfloat16"
std::string to_string(DTypes types);

}  // namespace fulmen
