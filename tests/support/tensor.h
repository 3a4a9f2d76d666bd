// SPDX-License-Identifier: Apache-2.0
// Tensors for tests: owned memory between guard bytes, random or exact contents, optional padding between rows, poison.
// Writes to the guards show when they are compared; with AddressSanitizer they, and reads, end the program.
#pragma once
#include <fulmen/core/tensor_view.h>

#include <cstring>
#include <random>
#include <vector>

#include "tests/support/asan.h"

namespace fulmen::testing {

class Tensor {
 public:
  static constexpr size_t kGuard = 64;  // bytes before and after
  static constexpr uint8_t kGuardByte = 0xa5;

  Tensor() = default;
  // row_padding: extra elements between rows of the last axis, to test strides; they belong to nobody.
  Tensor(DType dtype, std::vector<int64_t> shape, int64_t row_padding = 0) {
    view_.dtype = dtype;
    view_.rank = int32_t(shape.size());
    int64_t stride = 1;
    for (int32_t i = view_.rank; i-- > 0;) {
      view_.shape[i] = shape[size_t(i)];
      view_.strides[i] = stride;
      stride *= shape[size_t(i)] + (i == view_.rank - 1 ? row_padding : 0);
    }
    num_bytes_ = size_t(stride) * size_t(size_of(dtype));
    place();
    poison(0xff);
  }
  Tensor(const Tensor& other) { *this = other; }
  Tensor& operator=(const Tensor& other) {
    if (this == &other) return *this;
    view_ = other.view_, num_bytes_ = other.num_bytes_;
    bytes_.clear();
    if (other.bytes_.empty()) return *this;
    place();
    if (num_bytes_ > 0) std::memcpy(view_.data, other.view_.data, num_bytes_);
    return *this;
  }

  const TensorView& view() const { return view_; }
  operator const TensorView&() const { return view_; }
  size_t num_bytes() const { return num_bytes_; }
  template <class T>
  T* data() {
    return static_cast<T*>(view_.data);
  }
  template <class T>
  const T* data() const {
    return static_cast<const T*>(view_.data);
  }

  // Every byte, owned or not: 0xff is NaN in every float format here.
  void poison(uint8_t byte) { std::memset(view_.data, byte, num_bytes_); }

  void set(int64_t flat, double value) {
    int64_t at = 0;
    for (int32_t i = view_.rank - 1; i >= 0; --i)
      at += flat % view_.shape[i] * view_.strides[i], flat /= view_.shape[i];
    switch (view_.dtype) {
      case DType::kF32: data<float>()[at] = float(value); break;
      case DType::kF16: data<f16>()[at] = to_f16(float(value)); break;
      case DType::kBF16: data<bf16>()[at] = to_bf16(float(value)); break;
      case DType::kE4M3: data<e4m3>()[at] = to_e4m3(float(value)); break;
      case DType::kE5M2: data<e5m2>()[at] = to_e5m2(float(value)); break;
      case DType::kF64: data<double>()[at] = value; break;
      case DType::kI8: data<int8_t>()[at] = int8_t(value); break;
      case DType::kU8:
      case DType::kBool: data<uint8_t>()[at] = uint8_t(value); break;
      case DType::kI32: data<int32_t>()[at] = int32_t(value); break;
      case DType::kU32: data<uint32_t>()[at] = uint32_t(value); break;
      case DType::kI64: data<int64_t>()[at] = int64_t(value); break;
      case DType::kU64: data<uint64_t>()[at] = uint64_t(value); break;
    }
  }
  template <class F>
  Tensor& fill(F value) {  // value(flat) → double
    for (int64_t i = 0; i < view_.num_elements(); ++i) set(i, double(value(i)));
    return *this;
  }
  Tensor& fill_normal(uint64_t seed, double scale = 1) {
    std::mt19937_64 rng(seed);
    std::normal_distribution<double> normal(0, scale);
    return fill([&](int64_t) { return normal(rng); });
  }
  Tensor& fill_integers(uint64_t seed, int32_t low, int32_t high) {
    std::mt19937_64 rng(seed);
    std::uniform_int_distribution<int32_t> pick(low, high);
    return fill([&](int64_t) { return pick(rng); });
  }

  bool guards_intact() const {
    open_guards();
    bool intact = true;
    for (size_t i = 1; i <= kGuard; ++i)
      intact = intact && *(begin() - i) == kGuardByte && begin()[num_bytes_ + i - 1] == kGuardByte;
    close_guards();
    return intact;
  }
  // For who copies the tensor with its guards.
  void open_guards() const { allow(bytes_.data(), bytes_.size()); }
  void close_guards() const {
    forbid(bytes_.data(), size_t(begin() - bytes_.data()));
    forbid(begin() + num_bytes_, size_t(bytes_.data() + bytes_.size() - begin()) - num_bytes_);
  }
  bool same_bytes(const Tensor& other) const {
    return num_bytes_ == other.num_bytes_ && std::memcmp(view_.data, other.view_.data, num_bytes_) == 0;
  }

 private:
  const uint8_t* begin() const { return static_cast<const uint8_t*>(view_.data); }
  void place() {
    bytes_ = std::vector<uint8_t>(num_bytes_ + 2 * kGuard + 64, kGuardByte);
    const auto address = reinterpret_cast<uintptr_t>(bytes_.data()) + kGuard;
    view_.data = reinterpret_cast<void*>((address + 63) / 64 * 64);
    close_guards();
  }

  std::vector<uint8_t> bytes_;
  size_t num_bytes_ = 0;
  TensorView view_;
};

}  // namespace fulmen::testing
