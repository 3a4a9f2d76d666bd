// SPDX-License-Identifier: Apache-2.0
// Backend "cpu": one device, rows from the highest instruction set to the lowest.
#include <fulmen/runtime/registry.h>
#include <fulmen/runtime/thread_pool.h>

#include <algorithm>
#include <cstring>

#include "src/cpu/levels/table.h"

namespace fulmen::cpu {
namespace {

runtime::DeviceInfo device_info(int32_t, const Context& context) {
  return {.type = DeviceType::kCpu,
          .id = 0,
          .arch = int32_t(std::min(runtime::cpu_level(), context.max_cpu_level)),
          .num_workers = context.executor != nullptr ? context.executor->num_threads : runtime::num_threads()};
}

const std::vector<runtime::KernelRow>& rows() {
  static const std::vector<runtime::KernelRow>* all = [] {
    auto* rows = new std::vector<runtime::KernelRow>;
#if defined(__x86_64__)
    avx512_bf16::append_rows(*rows);
    avx512::append_rows(*rows);
    avx2::append_rows(*rows);
#endif
    scalar::append_rows(*rows);
    return rows;
  }();
  return *all;
}

const runtime::Backend& backend() {
  static const runtime::Backend b{
      .api_version = runtime::kBackendApiVersion,
      .name = "cpu",
      .device_type = DeviceType::kCpu,
      .num_devices = [] { return int32_t(1); },
      .device_info = device_info,
      .rows = rows().data(),
      .num_rows = int32_t(rows().size()),
      .copy = [](void* dst, const void* src, size_t n, const Context&) { std::memcpy(dst, src, n); },
      .synchronize = [](const Context&) {},
  };
  return b;
}

// The library registers its own backends when it is loaded.
[[maybe_unused]] const bool registered = (runtime::register_backend(&backend()), true);

}  // namespace
}  // namespace fulmen::cpu
