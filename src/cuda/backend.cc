// SPDX-License-Identifier: Apache-2.0
// Backend "cuda". It is registered where there is no GPU too: registering opens no library, so that loading Fulmen
// stays fast and safe before a fork; a call with a CUDA tensor then says what is missing.
#include <fulmen/runtime/registry.h>

#include "src/cuda/table.h"

namespace fulmen::cuda {
namespace {

// Unified addressing: any context knows where both pointers lie. The caller's own is used, else device 0's.
driver::Context some_context() {
  driver::Context current = nullptr;
  check(driver::api().context_get(&current), "cuCtxGetCurrent");
  return current != nullptr ? current : device(0).primary;
}

void synchronize(const Context& context) {
  const CurrentContext current(some_context());
  check(driver::api().stream_synchronize(static_cast<driver::Stream>(context.stream)), "cuStreamSynchronize");
}

void copy(void* dst, const void* src, size_t num_bytes, const Context& context) {
  const CurrentContext current(some_context());
  const auto stream = static_cast<driver::Stream>(context.stream);
  check(driver::api().memory_copy(driver::Pointer(dst), driver::Pointer(src), num_bytes, stream), "cuMemcpyAsync");
  check(driver::api().stream_synchronize(stream), "cuStreamSynchronize");
}

const runtime::Backend& backend() {
  static const runtime::Backend b{
      .api_version = runtime::kBackendApiVersion,
      .name = "cuda",
      .device_type = DeviceType::kCuda,
      .num_devices = num_devices,
      .device_info = [](int32_t id, const Context&) { return device(id).info(); },
      .rows = rows().data(),
      .num_rows = int32_t(rows().size()),
      .copy = copy,
      .synchronize = synchronize,
  };
  return b;
}

[[maybe_unused]] const bool registered = (runtime::register_backend(&backend()), true);

}  // namespace
}  // namespace fulmen::cuda
