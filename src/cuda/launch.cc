// SPDX-License-Identifier: Apache-2.0
#include "src/cuda/launch.h"

#include <fulmen/core/error.h>
#include <fulmen/runtime/dependent_launch.h>

#include <cstdlib>

namespace fulmen::cuda {
namespace {

// Loading allocates, which a capturing stream's thread may only do in relaxed mode; nothing of it enters the graph.
class RelaxedCapture {
 public:
  RelaxedCapture() { driver::api().exchange_capture_mode(&mode_); }
  ~RelaxedCapture() { driver::api().exchange_capture_mode(&mode_); }
  RelaxedCapture(const RelaxedCapture&) = delete;
  RelaxedCapture& operator=(const RelaxedCapture&) = delete;

 private:
  int32_t mode_ = driver::kCaptureRelaxed;
};

// Kernels for sm_90 and up wait by themselves before they touch memory; others would not. A driver that cannot record
// such launches in graphs (before 12.3) gets none.
bool records_dependence() {
  static const bool records = [] {
    int32_t version = 0;
    return driver::api().version(&version) == 0 && version >= 12030;
  }();
  return records;
}
bool can_depend(const std::string& arch) {
  const size_t digits = arch.find_first_of("0123456789");
  return records_dependence() && digits != arch.npos && std::atoi(arch.c_str() + digits) >= 90;
}

bool wants_dependence(const Context& context) {
  if (context.dependent_launch == DependentLaunch::kAsSet) return runtime::dependent_launch();
  return context.dependent_launch == DependentLaunch::kOn;
}

driver::LaunchConfig config_of(const Shape& s, driver::Stream stream, driver::LaunchAttribute (&attributes)[2],
                               bool dependent) {
  driver::LaunchConfig c{.grid_x = s.grid,
                         .grid_y = s.grid_y,
                         .grid_z = 1,
                         .block_x = s.num_threads,
                         .block_y = 1,
                         .block_z = 1,
                         .shared_bytes = s.shared_bytes,
                         .stream = stream,
                         .attributes = attributes,
                         .num_attributes = 0};
  if (s.cluster > 1) {
    driver::LaunchAttribute& a = attributes[c.num_attributes++];
    a.id = driver::kAttributeCluster;
    a.value.cluster = {s.cluster, 1, 1};
  }
  if (dependent) {
    driver::LaunchAttribute& a = attributes[c.num_attributes++];
    a.id = driver::kAttributeDependentLaunch;
    a.value.flag = 1;
  }
  return c;
}

}  // namespace

Function load(const jit::Unit& unit, const Device& device, const Shape& shape) {
  const RelaxedCapture relaxed;
  const jit::Jit::KernelPtr kernel = jit::default_jit().get(unit, device.targets);
  const driver::Api& cu = driver::api();
  driver::Module module = nullptr;
  const auto must = [&](driver::Result result, const char* what) {
    check(result, (unit.key + " for " + kernel->arch + ": " + what).c_str());
  };
  must(cu.module_load(&module, kernel->image.c_str(), 0, nullptr, nullptr), "cuModuleLoadData");
  Function f;
  f.resources = kernel->resources;
  f.can_depend = can_depend(kernel->arch);
  must(cu.module_function(&f.handle, module, jit::kEntryName), "cuModuleGetFunction");
  // As much as any later shape of the same key may ask for.
  if (shape.shared_bytes > 0)
    must(cu.function_set(f.handle, driver::kFunctionMaxShared, device.max_shared_bytes - f.resources.shared_bytes),
         "cuFuncSetAttribute");
  if (shape.all_shared) must(cu.function_set(f.handle, driver::kFunctionSharedPercent, 100), "cuFuncSetAttribute");
  if (shape.cluster > 8) must(cu.function_set(f.handle, driver::kFunctionNonPortableCluster, 1), "cuFuncSetAttribute");
  int32_t per_sm = 0;
  must(cu.occupancy(&per_sm, f.handle, int32_t(shape.num_threads), shape.shared_bytes), "cuOccupancyMaxActiveBlocks");
  f.max_ctas = f.max_single = std::max(1, per_sm) * device.num_sms;
  if (shape.cluster > 1) {
    driver::LaunchAttribute attributes[2] = {};
    Shape one = shape;
    one.grid = shape.cluster;
    const driver::LaunchConfig config = config_of(one, nullptr, attributes, false);
    int32_t clusters = 0;
    must(cu.occupancy_clusters(&clusters, f.handle, &config), "cuOccupancyMaxActiveClusters");
    f.max_ctas = std::max(1, clusters) * int32_t(shape.cluster);
  }
  return f;
}

bool may_overlap(const Device& device, const Context& context) {
  return device.arch >= 90 && records_dependence() && wants_dependence(context);
}

uint64_t capture_of(driver::Stream stream) {
  int32_t status = 0;
  uint64_t id = 0;
  const driver::Result result = driver::api().stream_capture_info(stream, &status, &id, nullptr, nullptr, nullptr);
  return result == 0 && status == 1 ? id + 1 : 0;
}

void launch(const char* op, const Function& function, const Shape& shape, const void* params, const Context& context) {
  driver::LaunchAttribute attributes[2];
  const driver::LaunchConfig config = config_of(shape, static_cast<driver::Stream>(context.stream), attributes,
                                                function.can_depend && wants_dependence(context));
  void* arguments[1] = {const_cast<void*>(params)};
  const driver::Result result = driver::api().launch(&config, function.handle, arguments, nullptr);
  if (result != 0) check(result, (std::string(op) + ": cuLaunchKernelEx, grid " + std::to_string(shape.grid)).c_str());
}

}  // namespace fulmen::cuda
