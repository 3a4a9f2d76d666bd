// SPDX-License-Identifier: Apache-2.0
// Backends register here; ops launch through here; the support matrix is printed from here.
#pragma once
#include <fulmen/runtime/backend.h>

#include <vector>

namespace fulmen::runtime {

// The backend must live as long as the process. Throws kInvalidArgument on another API version or a taken device type.
void register_backend(const Backend* backend);
const Backend* find_backend(DeviceType type);  // null: none registered
std::vector<const Backend*> backends();

// An op's rows over all backends, looked up once: `static const OpHandle kOp = op_handle("rmsnorm")`.
using OpHandle = int32_t;
OpHandle op_handle(std::string_view op);

// Runs the first row of the device's backend that accepts; else throws kUnsupported with every row's refusal.
void launch(OpHandle op, const TensorView& where, const void* args, const Context& context);

// Chooses like launch, and does what its first run would do besides running: compiling, loading. Reads no tensor's
// data.
void prepare(OpHandle op, const TensorView& where, const void* args, const Context& context);

// The same question without running: the kernel that would run, or every refusal.
struct Choice {
  const KernelRow* row = nullptr;
  std::string refusals;  // one line per row that refused
};
Choice choose(OpHandle op, DeviceType type, int32_t device_id, const void* args, const Context& context);

}  // namespace fulmen::runtime
