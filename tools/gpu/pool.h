// SPDX-License-Identifier: Apache-2.0
// The buffers of an attention problem on a GPU.
#pragma once
#include <fulmen/core/tensor_view.h>

#include <memory>
#include <random>
#include <vector>

#include "tools/gpu/timing.h"

namespace fulmen::gpu {

class AttentionPool {
 public:
  TensorView tensor(DType dtype, std::vector<int64_t> shape) {
    TensorView t;
    t.dtype = dtype, t.rank = int32_t(shape.size()), t.device_type = DeviceType::kCuda;
    int64_t stride = 1;
    for (int32_t i = t.rank; i-- > 0; stride *= shape[size_t(i)]) t.shape[i] = shape[size_t(i)], t.strides[i] = stride;
    memory_.push_back(std::make_shared<Memory>(size_t(stride) * size_t(size_of(dtype))));
    t.data = memory_.back()->data();
    return t;
  }
  // Normal values: zeros would use less power and so run faster. 8 MB of them, repeated.
  TensorView random(DType dtype, std::vector<int64_t> shape) {
    const TensorView t = tensor(dtype, std::move(shape));
    const std::vector<uint8_t>& source = dtype == DType::kBF16 ? bf16_values() : fp8_values();
    const size_t total = size_t(t.num_elements()) * size_t(size_of(dtype));
    size_t done = std::min(total, source.size());
    copy(t.data, source.data(), done);
    for (; done < total; done += std::min(done, total - done))
      copy(t.as<char>() + done, t.data, std::min(done, total - done));
    return t;
  }
  TensorView ids(const std::vector<int32_t>& values) {
    const TensorView t = tensor(DType::kI32, {int64_t(values.size())});
    copy(t.data, values.data(), values.size() * 4);
    return t;
  }

 private:
  static void copy(void* to, const void* from, size_t n) {
    cuda::check(driver::api().memory_copy(driver::Pointer(to), driver::Pointer(from), n, nullptr), "cuMemcpyAsync");
    cuda::check(driver::api().stream_synchronize(nullptr), "cuStreamSynchronize");
  }
  template <class F>
  static std::vector<uint8_t> values(size_t count, size_t size, F write) {
    std::vector<uint8_t> bytes(count * size);
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal;
    for (size_t i = 0; i < count; ++i) write(bytes.data() + i * size, normal(random));
    return bytes;
  }
  static const std::vector<uint8_t>& bf16_values() {
    static const std::vector<uint8_t> all = values(size_t(4) << 20, 2, [](uint8_t* to, float x) {
      const uint16_t bits = to_bf16(x).bits;
      to[0] = uint8_t(bits), to[1] = uint8_t(bits >> 8);
    });
    return all;
  }
  static const std::vector<uint8_t>& fp8_values() {
    static const std::vector<uint8_t> all =
        values(size_t(4) << 20, 1, [](uint8_t* to, float x) { to[0] = from_f32<e4m3>(x).bits; });
    return all;
  }
  std::vector<std::shared_ptr<Memory>> memory_;
};

}  // namespace fulmen::gpu
