// SPDX-License-Identifier: Apache-2.0
// A test's tensor on a GPU: uploaded with its padding and guard bytes, fetched with them, so that a write beside the
// tensor shows on the host.
#pragma once
#include <fulmen/runtime/registry.h>

#include <vector>

#include "src/cuda/device.h"
#include "tests/support/tensor.h"

namespace fulmen::testing {

class GpuMemory {
 public:
  explicit GpuMemory(size_t num_bytes) : num_bytes_(num_bytes) {
    const cuda::CurrentContext current(cuda::device(0).primary);
    cuda::check(cuda::driver::api().memory_alloc(&address_, num_bytes + 1), "cuMemAlloc");
  }
  ~GpuMemory() {
    const cuda::CurrentContext current(cuda::device(0).primary);
    cuda::driver::api().memory_free(address_);
  }
  GpuMemory(const GpuMemory&) = delete;
  GpuMemory& operator=(const GpuMemory&) = delete;
  char* data() const { return reinterpret_cast<char*>(address_); }
  size_t num_bytes() const { return num_bytes_; }

 private:
  cuda::driver::Pointer address_ = 0;
  size_t num_bytes_;
};

inline void gpu_copy(void* dst, const void* src, size_t num_bytes) {
  if (num_bytes > 0) runtime::find_backend(DeviceType::kCuda)->copy(dst, src, num_bytes, {});
}

// Stays bound to the host tensor it was made from.
class GpuTensor {
 public:
  explicit GpuTensor(Tensor& host) : host_(host), memory_(host.num_bytes() + 2 * Tensor::kGuard) { upload(); }
  void upload() { copy(memory_.data(), begin()); }
  operator TensorView() const {
    TensorView v = host_.view();
    v.data = memory_.data() + Tensor::kGuard;
    v.device_type = DeviceType::kCuda;
    return v;
  }
  Tensor& fetch() {
    copy(begin(), memory_.data());
    return host_;
  }

 private:
  char* begin() { return static_cast<char*>(host_.view().data) - Tensor::kGuard; }
  // The emulated device's memory is the host's, so that AddressSanitizer watches over its guards as well.
  void copy(char* to, const char* from) {
    host_.open_guards(), allow(memory_.data(), memory_.num_bytes());
    gpu_copy(to, from, memory_.num_bytes());
    host_.close_guards(), forbid(memory_.data(), Tensor::kGuard);
    forbid(memory_.data() + Tensor::kGuard + host_.num_bytes(), Tensor::kGuard);
  }
  Tensor& host_;
  GpuMemory memory_;
};

}  // namespace fulmen::testing
