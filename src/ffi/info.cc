// SPDX-License-Identifier: Apache-2.0
// What the module says about itself: functions, ops, kernels, devices, threads. JSON text, so that any language reads
// it.
#include <fulmen/runtime/cpu_level.h>
#include <fulmen/runtime/registry.h>
#include <fulmen/runtime/thread_pool.h>

#include "src/ffi/convert.h"
#include "src/ffi/schemas.h"

namespace fulmen::ffi {
namespace {

// {"name": "text", ...}
class Object {
 public:
  Object& text(std::string_view name, std::string_view value) { return json(name, quoted(value)); }
  Object& number(std::string_view name, int64_t value) { return json(name, std::to_string(value)); }
  Object& boolean(std::string_view name, bool value) { return json(name, value ? "true" : "false"); }
  Object& json(std::string_view name, std::string_view value) {
    text_.append(text_.empty() ? "{" : ", ").append(quoted(name)).append(": ").append(value);
    return *this;
  }
  std::string end() const {
    std::string whole = text_;
    whole.push_back('}');
    return whole;
  }
  static std::string quoted(std::string_view text) {
    const String escaped = tvm::ffi::EscapeStringJSON(String(text.data(), text.size()));
    return std::string(escaped.data(), escaped.size());
  }

 private:
  std::string text_;
};

// [first, second, ...]
std::string list(const std::vector<std::string>& items) {
  std::string text(1, '[');
  for (const std::string& item : items) text.append(text.size() == 1 ? "" : ", ").append(item);
  text.push_back(']');
  return text;
}

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

}  // namespace fulmen::ffi

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
FULMEN_FFI_EXPORT(why_not, "op, device_type, device_id",
                  "empty where a kernel of the op runs on the device, else every refusal");
