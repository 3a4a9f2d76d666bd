// SPDX-License-Identifier: Apache-2.0
// Cuts a caller's workspace into aligned slices. The same code measures (base == null) and hands out, so that the bytes
// asked for and the bytes used cannot differ.
#pragma once
#include <fulmen/core/error.h>

#include <cstdint>

namespace fulmen {

class Carver {
 public:
  static constexpr int64_t kAlign = 64;  // bytes; a cache line, so that workers do not share one

  explicit Carver(std::string_view op) : op_(op) {}  // measures
  Carver(std::string_view op, void* base, int64_t num_bytes) : op_(op), limit_(num_bytes) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(base);
    const uintptr_t aligned = (at + kAlign - 1) / kAlign * kAlign;
    base_ = static_cast<uint8_t*>(base) + (aligned - at);
    limit_ -= int64_t(aligned - at);
  }

  template <class T>
  T* take(std::string_view slice, int64_t count) {
    const int64_t bytes = (count * int64_t(sizeof(T)) + kAlign - 1) / kAlign * kAlign, at = used_;
    used_ += bytes;
    if (base_ == nullptr) return nullptr;
    if (used_ > limit_)
      fail(op_, "workspace",
           "has " + std::to_string(limit_) + " usable bytes; slice '" + std::string(slice) + "' needs " +
               std::to_string(bytes) + " from " + std::to_string(at) + " on");
    return reinterpret_cast<T*>(base_ + at);
  }
  int64_t bytes() const { return used_ + kAlign; }  // for a base of any alignment

 private:
  std::string_view op_;
  uint8_t* base_ = nullptr;
  int64_t used_ = 0, limit_ = 0;
};

}  // namespace fulmen
