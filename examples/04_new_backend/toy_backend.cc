// SPDX-License-Identifier: Apache-2.0
#include "examples/04_new_backend/toy_backend.h"

#include <fulmen/ops/rmsnorm.h>
#include <fulmen/runtime/registry.h>

#include <cmath>
#include <cstdlib>
#include <cstring>

namespace toy {
namespace {

using fulmen::Context;
using fulmen::RmsNormArgs;
using fulmen::runtime::DeviceInfo;
using fulmen::runtime::KernelRow;
using fulmen::runtime::Refusal;

// The op has checked shapes, strides and values; a row says only what this kernel cannot do.
Refusal refuses_rmsnorm(const void* args, const DeviceInfo&) {
  if (args == nullptr) return {};  // "can this device do it at all?"
  const auto& a = *static_cast<const RmsNormArgs*>(args);
  if (a.input.dtype != fulmen::DType::kF32 || a.weight.dtype != fulmen::DType::kF32)
    return std::string("input is ") + name_of(a.input.dtype) + ", this kernel has float32 only";
  if (a.input.rank != 2) return "input has heads, this kernel takes [num_tokens, hidden_size]";
  return {};
}

void launch_rmsnorm(const void* args, const Context&) {
  const auto& a = *static_cast<const RmsNormArgs*>(args);
  for (int64_t row = 0; row < a.input.shape[0]; ++row) {
    const float* x = a.input.as<const float>() + row * a.input.strides[0];
    float* y = a.out.as<float>() + row * a.out.strides[0];
    float sum = 0;
    for (int64_t i = 0; i < a.input.shape[1]; ++i) sum += x[i] * x[i];
    const float scale = 1 / std::sqrt(sum / float(a.input.shape[1]) + a.eps);
    for (int64_t i = 0; i < a.input.shape[1]; ++i) y[i] = x[i] * scale * (a.weight_bias + a.weight.as<float>()[i]);
  }
}

constexpr KernelRow kRows[] = {{"rmsnorm", "toy/simple", refuses_rmsnorm, launch_rmsnorm}};

constexpr fulmen::runtime::Backend kBackend{
    .api_version = fulmen::runtime::kBackendApiVersion,
    .name = "toy",
    .device_type = kToyDevice,
    .num_devices = [] { return int32_t(1); },
    .device_info = [](int32_t id, const Context&) { return DeviceInfo{.type = kToyDevice, .id = id}; },
    .rows = kRows,
    .num_rows = int32_t(std::size(kRows)),
    .copy = [](void* dst, const void* src, size_t num_bytes, const Context&) { std::memcpy(dst, src, num_bytes); },
    .synchronize = [](const Context&) {},
};

}  // namespace

void register_backend() { fulmen::runtime::register_backend(&kBackend); }
void* allocate(size_t num_bytes) { return std::malloc(num_bytes); }
void release(void* memory) { std::free(memory); }

}  // namespace toy
