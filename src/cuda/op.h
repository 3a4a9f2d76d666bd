// SPDX-License-Identifier: Apache-2.0
// One op of the CUDA backend is one struct of this form; table.cc lists them.
//
//   struct RmsNorm {
//     using Args = RmsNormArgs; using Key = rmsnorm::Key; using Params = rmsnorm::Params;
//     static constexpr const char* kName = "rmsnorm";                       // also of its header and namespace
//     static const TensorView& where(const Args&);                          // the tensor that says which device
//     static runtime::Refusal refuses(const Args&);                         // beyond what the op's check says; may
//     take
//                                                                           // the DeviceInfo as well
//     static Work<Key, Params> work(const Args&, const Device&);
//     static std::vector<Key> common_keys();                                // what a pack should hold; or of an arch
//   };
// An op of several kernels has launch(args, device, context) and prepare(args, device) instead of work; one that runs
// another op's kernel names it as kKernel.
#pragma once
#include <fulmen/runtime/backend.h>

#include <string>
#include <string_view>
#include <vector>

#include "src/cuda/key_rules.h"
#include "src/cuda/launch.h"

namespace fulmen::cuda {

template <class Op>
runtime::Refusal refuses(const void* args, const runtime::DeviceInfo& device) {
  if (device.arch < 75) return "needs sm_75 or later, device is sm_" + std::to_string(device.arch);
  if (args == nullptr) return {};
  const auto& a = *static_cast<const typename Op::Args*>(args);
  if constexpr (requires { Op::refuses(a, device); })
    return Op::refuses(a, device);
  else
    return Op::refuses(a);
}

// The kernel's header and namespace, where they are another op's.
template <class Op>
constexpr const char* kernel_of() {
  if constexpr (requires { Op::kKernel; })
    return Op::kKernel;
  else
    return Op::kName;
}

template <class Op>
void launch_op(const void* args, const Context& context) {
  const auto& a = *static_cast<const typename Op::Args*>(args);
  const Device& d = device(Op::where(a).device_id);
  if constexpr (requires { Op::launch(a, d, context); })
    Op::launch(a, d, context);
  else
    run(kernel_of<Op>(), Op::work(a, d), d, context);
}

template <class Op>
void prepare_op(const void* args, const Context&) {
  const auto& a = *static_cast<const typename Op::Args*>(args);
  const Device& d = device(Op::where(a).device_id);
  if constexpr (requires { Op::prepare(a, d); })
    Op::prepare(a, d);
  else
    prepare(kernel_of<Op>(), Op::work(a, d), d);
}

// An op as packs and tools see it: lines of keys.
struct Family {
  std::string_view name;
  jit::Unit (*unit)(std::string_view line);  // throws Error{kInvalidArgument} that names what is wrong with the line
  std::vector<std::string> (*common_lines)(int32_t arch);  // that devices of it ask for; 0: of any
};

// Most ops' kernels are the same on all devices.
template <class Op>
std::vector<typename Op::Key> common_keys(int32_t arch) {
  if constexpr (requires { Op::common_keys(arch); })
    return Op::common_keys(arch);
  else
    return Op::common_keys();
}

template <class Op>
Family family() {
  return {kernel_of<Op>(),
          [](std::string_view line) {
            const auto key = jit::key_from<typename Op::Key>(line);
            check_key(key, KeyRules{kernel_of<Op>()});
            return jit::unit_of(kernel_of<Op>(), key);
          },
          [](int32_t arch) {
            std::vector<std::string> lines;
            for (const auto& key : common_keys<Op>(arch)) {
              std::string line = jit::line_of(kernel_of<Op>(), key);
              if (std::find(lines.begin(), lines.end(), line) == lines.end()) lines.push_back(std::move(line));
            }
            return lines;
          }};
}

}  // namespace fulmen::cuda
