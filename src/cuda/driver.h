// SPDX-License-Identifier: Apache-2.0
// The CUDA driver, opened at the first use of a CUDA device and never before. Our own declarations of the part of its
// public interface that we call; tests/cuda_abi_test.cc compares them with cuda.h where there is one.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace fulmen::cuda {

namespace driver {
using Result = int32_t;  // 0: success
using DeviceId = int32_t;
using Context = struct ContextHandle*;
using Module = struct ModuleHandle*;
using Function = struct FunctionHandle*;
using Stream = struct StreamHandle*;
using Event = struct EventHandle*;
using Graph = struct GraphHandle*;
using GraphExec = struct GraphExecHandle*;
using Pointer = uint64_t;

// CUdevice_attribute, CUfunction_attribute
inline constexpr int32_t kMultiprocessors = 16, kClockKhz = 13, kL2Bytes = 38, kMajor = 75, kMinor = 76,
                         kMaxSharedOptin = 97;
inline constexpr int32_t kFunctionMaxShared = 8, kFunctionSharedPercent = 9, kFunctionNonPortableCluster = 14;
inline constexpr int32_t kNotReady = 600, kOutOfMemory = 2;
inline constexpr int32_t kCaptureGlobal = 0, kCaptureRelaxed = 2;

// CUlaunchAttribute and CUlaunchConfig
inline constexpr int32_t kAttributeCluster = 4, kAttributeDependentLaunch = 6;
struct LaunchAttribute {
  int32_t id;
  char pad[4];
  union {
    char bytes[64];
    struct {
      uint32_t x, y, z;
    } cluster;
    int32_t flag;
  } value;
};
struct LaunchConfig {
  uint32_t grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  uint32_t num_attributes;
};

struct Api {
  Result (*init)(uint32_t flags);
  Result (*version)(int32_t*);
  Result (*device_count)(int32_t*);
  Result (*device_get)(DeviceId*, int32_t ordinal);
  Result (*device_name)(char*, int32_t size, DeviceId);
  Result (*device_attribute)(int32_t*, int32_t attribute, DeviceId);
  Result (*primary_context_retain)(Context*, DeviceId);
  Result (*context_get)(Context*);
  Result (*context_push)(Context);
  Result (*context_pop)(Context*);
  Result (*module_load)(Module*, const void* image, uint32_t num_options, int32_t* options, void** values);
  Result (*module_function)(Function*, Module, const char* name);
  Result (*function_set)(Function, int32_t attribute, int32_t value);
  Result (*occupancy)(int32_t* num_ctas, Function, int32_t num_threads, size_t shared_bytes);
  Result (*occupancy_clusters)(int32_t* num_clusters, Function, const LaunchConfig*);
  Result (*launch)(const LaunchConfig*, Function, void** params, void** extra);
  Result (*exchange_capture_mode)(int32_t* mode);
  Result (*memory_alloc)(Pointer*, size_t);
  Result (*memory_free)(Pointer);
  Result (*memory_alloc_async)(Pointer*, size_t, Stream);
  Result (*memory_free_async)(Pointer, Stream);
  Result (*memory_copy)(Pointer dst, Pointer src, size_t, Stream);
  Result (*memory_set)(Pointer, uint8_t, size_t, Stream);
  Result (*stream_create)(Stream*, uint32_t flags);
  Result (*stream_destroy)(Stream);
  Result (*stream_synchronize)(Stream);
  Result (*stream_begin_capture)(Stream, int32_t mode);
  Result (*stream_end_capture)(Stream, Graph*);
  // status: 0 none, 1 active. The outputs after id may be null.
  Result (*stream_capture_info)(Stream, int32_t* status, uint64_t* id, Graph*, const void** nodes, size_t* num_nodes);
  Result (*graph_instantiate)(GraphExec*, Graph, uint64_t flags);
  Result (*graph_launch)(GraphExec, Stream);
  Result (*graph_exec_destroy)(GraphExec);
  Result (*graph_destroy)(Graph);
  Result (*event_create)(Event*, uint32_t flags);
  Result (*event_destroy)(Event);
  Result (*event_record)(Event, Stream);
  Result (*event_synchronize)(Event);
  Result (*event_elapsed)(float* ms, Event start, Event end);
  Result (*error_name)(Result, const char**);
  Result (*error_string)(Result, const char**);
};

// Why there is no driver; empty: there is one. Opens it at the first call.
const std::string& problem();
// Throws kUnsupported where there is no driver.
const Api& api();
// For tests: a driver of one's own, installed before the first use of any.
void install(const Api& other);
}  // namespace driver

// Throws kInternal naming what failed, unless the result is success.
void check(driver::Result result, const char* what);

}  // namespace fulmen::cuda
