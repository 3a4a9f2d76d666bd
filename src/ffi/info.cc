// SPDX-License-Identifier: Apache-2.0
// What the module says about itself: functions, ops, kernels, devices, threads. JSON text, so that any language reads
// it.
#include <fulmen/runtime/cpu_level.h>
#include <fulmen/runtime/dependent_launch.h>
#include <fulmen/runtime/dry_run.h>
#include <fulmen/runtime/registry.h>
#include <fulmen/runtime/thread_pool.h>
#include <tvm/ffi/container/array.h>

#include <atomic>
#include <optional>

#include "src/ffi/convert.h"
#include "src/ffi/json.h"
#include "src/ffi/schemas.h"

namespace fulmen::ffi {
namespace {

std::string dtypes_of(DTypes types) {
  std::vector<std::string> names;
  for (int32_t i = 0; i < kNumDTypes; ++i)
    if (types.has(DType(i))) names.push_back(Object::quoted(name_of(DType(i))));
  return list(names);
}

const char* name_of_access(Access access) {
  return access == Access::kRead ? "read" : access == Access::kWrite ? "write" : "read_write";
}

std::string schema_of(const OpSchema& schema) {
  std::vector<std::string> tensors;
  for (const TensorRow& row : schema.rows())
    tensors.push_back(Object()
                          .text("name", row.name)
                          .text("shape", row.shape)
                          .json("dtypes", dtypes_of(row.dtypes))
                          .text("access", name_of_access(row.access))
                          .boolean("optional", row.presence == Presence::kOptional)
                          .text("doc", row.doc)
                          .end());
  return Object().text("op", schema.op()).json("tensors", list(tensors)).end();
}

// One kernel on the backend's first device: refusal is empty where it runs.
std::string kernel_of(const runtime::KernelRow& row, const runtime::Backend& backend) {
  const std::string refusal =
      backend.num_devices() == 0 ? "no device" : row.refuses(nullptr, backend.device_info(0, {}));
  return Object()
      .text("op", row.op)
      .text("kernel", row.kernel)
      .text("backend", backend.name)
      .text("refusal", refusal)
      .end();
}

}  // namespace

String version_() { return FULMEN_VERSION; }

String list_functions_() {
  std::vector<std::string> all;
  for (const Export& e : exports()) {
    std::vector<std::string> types;
    for (const char* type : e.types) types.push_back(Object::quoted(type));
    all.push_back(Object()
                      .text("name", e.name)
                      .text("arguments", e.arguments)
                      .number("num_arguments", e.num_arguments)
                      .json("types", list(types))
                      .text("doc", e.doc)
                      .end());
  }
  return list(all);
}

String list_schemas_() {
  std::vector<std::string> all;
  for (const OpSchema* schema : kSchemas) all.push_back(schema_of(*schema));
  for (const auto& [entry, paged] : kAttentionSchemas)
    all.push_back(schema_of(attention_schema(entry, KvLayout::kNHD, paged)));
  return list(all);
}

String list_kernels_() {
  std::vector<std::string> all;
  for (const runtime::Backend* backend : runtime::backends())
    for (int32_t i = 0; i < backend->num_rows; ++i) all.push_back(kernel_of(backend->rows[i], *backend));
  return list(all);
}

String list_devices_() {
  std::vector<std::string> all;
  for (const runtime::Backend* backend : runtime::backends())
    for (int32_t i = 0; i < backend->num_devices(); ++i) {
      const runtime::DeviceInfo info = backend->device_info(i, {});
      all.push_back(Object()
                        .text("backend", backend->name)
                        .number("device_type", int32_t(info.type))
                        .number("device_id", info.id)
                        .number("arch", info.arch)
                        .number("num_workers", info.num_workers)
                        .end());
    }
  return list(all);
}

String cpu_level_() { return runtime::name_of(runtime::cpu_level()); }
String detected_cpu_level_() { return runtime::name_of(runtime::detected_cpu_level()); }
int64_t num_threads_() { return runtime::num_threads(); }
bool dependent_launch_() { return runtime::dependent_launch(); }
void set_dependent_launch_(bool on) { runtime::set_dependent_launch(on); }
// For the thread's calls: true, false, or None for what the process has set. What it was before.
tvm::ffi::Optional<bool> ask_dependent_launch_(tvm::ffi::Optional<bool> on) {
  DependentLaunch& asked = dependent_launch_of_calls();
  const DependentLaunch before = asked;
  asked = !on.has_value() ? DependentLaunch::kAsSet : *on ? DependentLaunch::kOn : DependentLaunch::kOff;
  if (before == DependentLaunch::kAsSet) return {};
  return before == DependentLaunch::kOn;
}
void set_num_threads_(int64_t n) { runtime::set_num_threads(to_i32("set_num_threads", "n", n)); }

// Empty: some kernel of the op runs on the device. Else one line per kernel that refuses it.
String why_not_(String op, int64_t device_type, int64_t device_id) {
  const runtime::OpHandle handle = runtime::op_handle(std::string_view(op.data(), op.size()));
  const DeviceType type = DeviceType(to_i32("why_not", "device_type", device_type));
  const int32_t id = to_i32("why_not", "device_id", device_id);
  try {
    const runtime::Choice choice = runtime::choose(handle, type, id, nullptr, {});
    return choice.row != nullptr ? std::string() : choice.refusals;
  } catch (const Error& error) {
    return "\n  " + error.message;  // a device that cannot be asked: no driver, no such number
  }
}

// True: launches of this thread choose kernels and run none. False: ends that; the names of the chosen, a line each.
String dry_run_(bool on) {
  thread_local std::optional<runtime::DryRun> dry;
  if (on) return dry.emplace(), std::string();
  std::string names;
  if (dry)
    for (const runtime::KernelRow* row : dry->rows()) names.append(row->kernel).append("\n");
  dry.reset();
  return names;
}

namespace {

struct NoMemory {
  void AllocData(DLTensor* tensor) {
    static std::atomic<uint32_t> serial{0};
    tensor->data = no_memory(serial.fetch_add(1));
  }
  void FreeData(DLTensor*) {}
};

}  // namespace

tvm::ffi::Tensor stand_in_(tvm::ffi::Array<int64_t> shape, DLDataType dtype, int64_t device_type, int64_t device_id) {
  const std::vector<int64_t> sizes(shape.begin(), shape.end());
  const DLDevice device{DLDeviceType(to_i32("stand_in", "device_type", device_type)),
                        to_i32("stand_in", "device_id", device_id)};
  return tvm::ffi::Tensor::FromNDAlloc(NoMemory{}, tvm::ffi::ShapeView(sizes.data(), sizes.size()), dtype, device);
}

}  // namespace fulmen::ffi

FULMEN_FFI_EXPORT(dry_run, "on",
                  "true: calls of this thread choose kernels and run none; false: ends that and names the chosen");
FULMEN_FFI_EXPORT(stand_in, "shape, dtype, device_type, device_id",
                  "a tensor without memory, for calls that do not run: dry_run, attention_plan");
FULMEN_FFI_EXPORT(version, "", "the library's version");
FULMEN_FFI_EXPORT(list_functions, "", "JSON: every function of this module with its arguments in order");
FULMEN_FFI_EXPORT(list_schemas, "", "JSON: every op's tensors with shapes and dtypes");
FULMEN_FFI_EXPORT(list_kernels, "",
                  "JSON: every kernel of every backend; refusal is empty where it runs on this machine");
FULMEN_FFI_EXPORT(list_devices, "", "JSON: every device; arch is the CPU level or 10 * CUDA major + minor");
FULMEN_FFI_EXPORT(cpu_level, "", "the instruction set that CPU kernels run with: detected, capped by FULMEN_CPU_LEVEL");
FULMEN_FFI_EXPORT(detected_cpu_level, "", "the instruction set that the machine has");
FULMEN_FFI_EXPORT(num_threads, "", "threads of the CPU backend's pool");
FULMEN_FFI_EXPORT(set_num_threads, "n", "sets the threads of the CPU backend's pool");
FULMEN_FFI_EXPORT(dependent_launch, "", "whether CUDA kernels start while the stream's previous one ends");
FULMEN_FFI_EXPORT(set_dependent_launch, "on", "sets it for all later launches; first: whether FULMEN_PDL is not 0");
FULMEN_FFI_EXPORT(ask_dependent_launch, "on",
                  "sets it for the later calls of this thread, None: as all have it; what it was before");
FULMEN_FFI_EXPORT(why_not, "op, device_type, device_id",
                  "empty where a kernel of the op runs on the device, else every refusal");
