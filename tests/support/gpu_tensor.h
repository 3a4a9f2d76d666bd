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
  void upload() { gpu_copy(memory_.data(), begin(), memory_.num_bytes()); }
  operator TensorView() const {
    TensorView v = host_.view();
    v.data = memory_.data() + Tensor::kGuard;
    v.device_type = DeviceType::kCuda;
    return v;
  }
  Tensor& fetch() {
    gpu_copy(begin(), memory_.data(), memory_.num_bytes());
    return host_;
  }

 private:
  char* begin() { return static_cast<char*>(host_.view().data) - Tensor::kGuard; }
  Tensor& host_;
  GpuMemory memory_;
};

}  // namespace fulmen::testing
