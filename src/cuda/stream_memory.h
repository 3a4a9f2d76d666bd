// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "src/cuda/driver.h"

namespace fulmen::cuda {

// Memory of the stream's own for a call that brings no workspace.
class StreamMemory {
 public:
  StreamMemory(size_t num_bytes, driver::Stream stream) : stream_(stream) {
    check(driver::api().memory_alloc_async(&address_, num_bytes, stream), "cuMemAllocAsync of a workspace");
  }
  ~StreamMemory() { driver::api().memory_free_async(address_, stream_); }
  StreamMemory(const StreamMemory&) = delete;
  StreamMemory& operator=(const StreamMemory&) = delete;
  void* data() const { return reinterpret_cast<void*>(address_); }

 private:
  driver::Pointer address_ = 0;
  driver::Stream stream_;
};

}  // namespace fulmen::cuda
