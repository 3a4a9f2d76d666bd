// SPDX-License-Identifier: Apache-2.0
// What a device must provide: this struct, and rows of kernels. The core never names a device.
// How to port, step by step: docs/adding_a_backend.md. A complete small one: examples/04_new_backend/.
#pragma once
#include <fulmen/core/context.h>
#include <fulmen/core/error.h>
#include <fulmen/core/tensor_view.h>

#include <string>
#include <string_view>

namespace fulmen::runtime {

inline constexpr int32_t kBackendApiVersion = 1;

struct DeviceInfo {
  DeviceType type = DeviceType::kCpu;
  int32_t id = 0;
  int32_t arch = 0;         // cpu: CpuLevel; cuda: 10 * major + minor
  int32_t num_workers = 1;  // threads or SMs: what a planner fills
};

// Why a kernel cannot serve a call; empty: it can.
using Refusal = std::string;

// One kernel of one op. Rows of an op go from most to least specialised; the first that accepts runs.
struct KernelRow {
  std::string_view op;      // "rmsnorm"
  std::string_view kernel;  // "cpu/avx512"
  // args points to the op's argument struct (RmsNormArgs); null asks about the device alone.
  Refusal (*refuses)(const void* args, const DeviceInfo& device);
  // Arguments were checked by the op. Must not throw anything but Error.
  void (*launch)(const void* args, const Context& context);
  // Optional: everything slow that a first launch would do (compile, load), so that a launch can be captured or timed.
  void (*prepare)(const void* args, const Context& context) = nullptr;
};

struct Backend {
  int32_t api_version;  // kBackendApiVersion
  std::string_view name;
  DeviceType device_type;
  int32_t (*num_devices)();
  DeviceInfo (*device_info)(int32_t device_id, const Context& context);  // the context may cap it
  const KernelRow* rows;
  int32_t num_rows;
  void (*copy)(void* dst, const void* src, size_t num_bytes, const Context& context);  // optional: tests and tools
  void (*synchronize)(const Context& context);                                         // optional: devices with streams
};

}  // namespace fulmen::runtime
