// SPDX-License-Identifier: Apache-2.0
// A borrowed tensor: pointer, dtype, shape, strides in elements, device. Shaped like DLPack's, owns nothing.
#pragma once
#include <fulmen/core/dtype.h>

#include <cstddef>
#include <initializer_list>
#include <type_traits>

namespace fulmen {

enum class DeviceType : int32_t { kCpu = 1, kCuda = 2 };  // DLPack's numbers; others are a backend's own

struct TensorView {
  static constexpr int32_t kMaxRank = 6;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int32_t rank = -1;  // -1: an optional tensor that was not given
  int64_t shape[kMaxRank] = {};
  int64_t strides[kMaxRank] = {};  // elements, not bytes
  DeviceType device_type = DeviceType::kCpu;
  int32_t device_id = 0;

  bool defined() const { return rank >= 0; }
  int64_t num_elements() const {  // unsigned inside: an empty tensor may have other sizes whose product overflows
    uint64_t n = 1;
    for (int32_t i = 0; i < rank; ++i) n *= uint64_t(shape[i]);
    return int64_t(n);
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

// A contiguous view of T's dtype.
template <class T>
TensorView view_of(T* data, std::initializer_list<int64_t> shape) {
  TensorView v;
  v.data = const_cast<void*>(static_cast<const void*>(data));
  v.dtype = dtype_of<std::remove_const_t<T>>;
  v.rank = int32_t(shape.size());
  int32_t i = 0;
  for (int64_t n : shape) v.shape[i++] = n;
  for (int64_t stride = 1; i-- > 0; stride *= v.shape[i]) v.strides[i] = stride;
  return v;
}

// Tensors without memory, which lend their shapes to a call that never runs, point into the first 64 KiB of the address
// space: no system maps it, and they share it with nobody.
inline void* no_memory(uint32_t serial = 0) { return reinterpret_cast<void*>(uintptr_t(serial % 255 + 1) << 8); }
inline bool is_no_memory(const void* data) { return reinterpret_cast<uintptr_t>(data) < (uintptr_t(1) << 16); }

// The same tensor with an axis of length 1 inserted, so that [n, d] can be read as [n, 1, d].
inline TensorView insert_axis(TensorView v, int32_t axis) {
  for (int32_t i = v.rank; i > axis; --i) v.shape[i] = v.shape[i - 1], v.strides[i] = v.strides[i - 1];
  v.shape[axis] = 1;
  v.strides[axis] = 0;
  ++v.rank;
  return v;
}

}  // namespace fulmen
