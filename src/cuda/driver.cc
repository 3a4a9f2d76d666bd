// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/driver.h"

#include <fulmen/core/error.h>

#include "src/jit/dynamic_library.h"

namespace fulmen::cuda {
namespace driver {
namespace {

// _v2, _v3: the form of a function since CUDA 4 or 11, which cuda.h hides behind a macro.
bool load_devices(const jit::DynamicLibrary& lib, Api* a) {
  return lib.get("cuInit", &a->init) && lib.get("cuDriverGetVersion", &a->version) &&
         lib.get("cuDeviceGetCount", &a->device_count) && lib.get("cuDeviceGet", &a->device_get) &&
         lib.get("cuDeviceGetName", &a->device_name) && lib.get("cuDeviceGetAttribute", &a->device_attribute) &&
         lib.get("cuDevicePrimaryCtxRetain", &a->primary_context_retain) &&
         lib.get("cuCtxGetCurrent", &a->context_get) && lib.get("cuCtxPushCurrent_v2", &a->context_push) &&
         lib.get("cuCtxPopCurrent_v2", &a->context_pop) && lib.get("cuGetErrorName", &a->error_name) &&
         lib.get("cuGetErrorString", &a->error_string);
}

bool load_kernels(const jit::DynamicLibrary& lib, Api* a) {
  return lib.get("cuModuleLoadDataEx", &a->module_load) && lib.get("cuModuleGetFunction", &a->module_function) &&
         lib.get("cuFuncSetAttribute", &a->function_set) &&
         lib.get("cuOccupancyMaxActiveBlocksPerMultiprocessor", &a->occupancy) &&
         lib.get("cuOccupancyMaxActiveClusters", &a->occupancy_clusters) && lib.get("cuLaunchKernelEx", &a->launch) &&
         lib.get("cuThreadExchangeStreamCaptureMode", &a->exchange_capture_mode);
}

bool load_memory(const jit::DynamicLibrary& lib, Api* a) {
  return lib.get("cuMemAlloc_v2", &a->memory_alloc) && lib.get("cuMemFree_v2", &a->memory_free) &&
         lib.get("cuMemAllocAsync", &a->memory_alloc_async) && lib.get("cuMemFreeAsync", &a->memory_free_async) &&
         lib.get("cuMemcpyAsync", &a->memory_copy) && lib.get("cuMemsetD8Async", &a->memory_set);
}

bool load_streams(const jit::DynamicLibrary& lib, Api* a) {
  return lib.get("cuStreamCreate", &a->stream_create) && lib.get("cuStreamDestroy_v2", &a->stream_destroy) &&
         lib.get("cuStreamSynchronize", &a->stream_synchronize) &&
         lib.get("cuStreamBeginCapture_v2", &a->stream_begin_capture) &&
         lib.get("cuStreamEndCapture", &a->stream_end_capture) &&
         lib.get("cuStreamGetCaptureInfo_v2", &a->stream_capture_info) &&
         lib.get("cuGraphInstantiateWithFlags", &a->graph_instantiate) && lib.get("cuGraphLaunch", &a->graph_launch) &&
         lib.get("cuGraphExecDestroy", &a->graph_exec_destroy) && lib.get("cuGraphDestroy", &a->graph_destroy) &&
         lib.get("cuEventCreate", &a->event_create) && lib.get("cuEventDestroy_v2", &a->event_destroy) &&
         lib.get("cuEventRecord", &a->event_record) && lib.get("cuEventSynchronize", &a->event_synchronize) &&
         lib.get("cuEventElapsedTime", &a->event_elapsed);
}

struct Loaded {
  Api api{};
  std::string problem;
};

const Api*& installed() {
  static const Api* other = nullptr;
  return other;
}

Loaded open() {
  Loaded l;
  if (installed() != nullptr) return l.api = *installed(), l;
  const jit::DynamicLibrary lib({"libcuda.so.1"}, {});
  if (!lib.is_open()) {
    l.problem = "the CUDA driver cannot be opened (" + lib.error() + "); install NVIDIA's driver for this GPU";
  } else if (!load_devices(lib, &l.api) || !load_kernels(lib, &l.api) || !load_memory(lib, &l.api) ||
             !load_streams(lib, &l.api)) {
    l.problem = "the CUDA driver is older than 11.8; install a newer one";
  } else if (const Result result = l.api.init(0); result != 0) {
    const char* text = nullptr;
    l.api.error_string(result, &text);
    l.problem = std::string("the CUDA driver does not start: ") + (text == nullptr ? "unknown error" : text);
  }
  return l;
}

const Loaded& loaded() {
  static const Loaded* l = new Loaded(open());  // never destroyed: kernels may be launched while statics die
  return *l;
}

}  // namespace

void install(const Api& other) { installed() = &other; }

const std::string& problem() { return loaded().problem; }

const Api& api() {
  const Loaded& l = loaded();
  if (!l.problem.empty()) throw Error(Code::kUnsupported, "cuda: " + l.problem);
  return l.api;
}

}  // namespace driver

void check(driver::Result result, const char* what) {
  if (result == 0) return;
  const char *name = nullptr, *text = nullptr;
  driver::api().error_name(result, &name);
  driver::api().error_string(result, &text);
  throw Error(Code::kInternal, std::string(what) + ": " + (name == nullptr ? "unknown CUDA error" : name) + ": " +
                                   (text == nullptr ? std::to_string(result) : text));
}

}  // namespace fulmen::cuda
